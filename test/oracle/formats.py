"""Checkpoints in other tools' formats: what mlx-lm's loader makes of them, tensor by tensor, and the logits.

The fixture says how each tensor of a checkpoint is made: [kind, dtype, shape], of a formula of its name. GPTQ's own
layout, which mlx-lm does not read, is made here from the same values that AWQ's layout holds.
"""

import hashlib
import json
import os
import struct
import tempfile
from pathlib import Path
from types import SimpleNamespace

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import bitlinear_layers, minimax
from mlx_lm.utils import load_model

import encode
from weights import uniform, weight

PROMPT = [7, 201, 42, 99, 13, 250, 128, 64]
LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 256, "tie_word_embeddings": False,
}
# Wider than a block of 128.
WIDE = {**LLAMA, "hidden_size": 160, "head_dim": 40, "vocab_size": 128}
BITNET = {**LLAMA, "model_type": "bitnet", "tie_word_embeddings": True, "max_position_embeddings": 512}
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "U8": 1, "I32": 4, "U32": 4}


def drawn(key, size, limit):
    """Whole numbers from 0 to 2 · limit, as bytes. In float64, as JavaScript computes."""
    return np.floor((uniform(key, size).astype(np.float64) + 1) * limit).astype(np.uint8)


def bytes_of(kind, name, dtype, shape, salt=None):
    """The tensor's bytes; test/parity/checkpoint-files.ts has the same formulas."""
    size = int(np.prod(shape))
    path, name = name, name if salt is None else f"{salt}/{name}"
    if kind == "weight":
        values = weight(path, shape, salt or 0).reshape(-1)
    elif kind == "scale":  # positive, and exact in sixteen bits
        values = np.floor((uniform(name, size) + 3) * 16) / 2048
    elif kind == "zero of 8":  # of the scales beside it
        values = -8 * np.floor((uniform(f"{name.removesuffix('biases')}scales", size) + 3) * 16) / 2048
    elif kind == "bits":
        return drawn(name, size * SIZES[dtype], 128).tobytes()
    elif kind == "fp8":  # no NaN, no extremes
        size *= SIZES[dtype]
        sign = drawn(name, size, 128) & 0x80
        return (sign | drawn(f"{name}/size", size, 44)).tobytes()
    elif kind == "fp8 scale":  # from 0.5 to 2, the positive half
        return (np.uint8(0x30) + drawn(name, size, 8)).tobytes()
    elif kind == "exponent":  # 2 ** -6 to 2 ** -3
        return (np.uint8(121) + drawn(name, size, 2)).tobytes()
    elif kind == "ternary":  # four values of 0, 1, 2 to a byte
        parts = drawn(name, size * 4, 1.5).reshape(size, 4)
        return (parts << np.array([0, 2, 4, 6], dtype=np.uint8)).sum(axis=1).astype(np.uint8).tobytes()
    else:
        raise ValueError(kind)
    x = mx.array(values.astype(np.float32)).astype({"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}[dtype])
    return np.array(x.view(mx.uint8)).tobytes()


def save(folder, config, tensors, data=None):
    """A checkpoint folder; MLX cannot write F8_E4M3, so the file is put together here."""
    header, body = {}, b""
    for name, (kind, dtype, shape) in tensors.items():
        raw = data[name] if data and name in data else bytes_of(kind, name, dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    (folder / "config.json").write_text(json.dumps(config))


def layers(config):
    """Path -> (outputs, inputs) of the projections."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    wide, narrow = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    for i in range(config["num_hidden_layers"]):
        for name, shape in {
            "self_attn.q_proj": (wide, hidden), "self_attn.k_proj": (narrow, hidden), "self_attn.v_proj": (narrow, hidden),
            "self_attn.o_proj": (hidden, wide), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }.items():
            yield f"model.layers.{i}.{name}", shape


def checkpoint(config, packed, dtype):
    """name -> [kind, dtype, shape], the projections as `packed` says, the rest plain."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    tensors = {"model.embed_tokens.weight": ["weight", dtype, (vocab, hidden)]}
    for path, (N, K) in layers(config):
        for suffix, tensor in packed(N, K).items():
            tensors[f"{path}.{suffix}"] = tensor
    for i in range(config["num_hidden_layers"]):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{norm}.weight"] = ["weight", dtype, (hidden,)]
        if config["model_type"] == "bitnet":
            tensors[f"model.layers.{i}.self_attn.attn_sub_norm.weight"] = ["weight", dtype, (hidden,)]
            tensors[f"model.layers.{i}.mlp.ffn_sub_norm.weight"] = ["weight", dtype, (config["intermediate_size"],)]
    tensors["model.norm.weight"] = ["weight", dtype, (hidden,)]
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = ["weight", dtype, (vocab, hidden)]
    return tensors


def awq(N, K):
    return {
        "qweight": ["bits", "I32", (K, N // 8)], "qzeros": ["bits", "I32", (K // 32, N // 8)],
        "scales": ["scale", "F16", (K // 32, N)],
    }


def symmetric(N, K):
    return {name: tensor for name, tensor in awq(N, K).items() if name != "qzeros"}


def integers(N, K):
    return {
        "weight_packed": ["bits", "I32", (N, K // 8)], "weight_scale": ["scale", "BF16", (N, K // 32)],
        "weight_shape": ["bits", "I32", (2,)],
    }


def microscaled(bits, group, kind, dtype):
    return lambda N, K: {
        "weight": ["bits" if bits == 4 else "fp8", "U32", (N, K * bits // 32)], "scales": [kind, dtype, (N, K // group)],
    }


def blocks(a, b):
    return lambda N, K: {"weight": ["fp8", "F8_E4M3", (N, K)], "weight_scale_inv": ["scale", "F32", (-(-N // a), -(-K // b))]}


def ternary(N, K):
    return {"weight": ["ternary", "U8", (N // 4, K)], "weight_scale": ["scale", "BF16", (1,)]}


def settings(method, **more):
    return {"quantization_config": {"quant_method": method, **more}}


CASES = {
    "awq": ({**LLAMA, **settings("awq", bits=4, group_size=32)}, awq, "F16"),
    "awq, bfloat16 around": ({**LLAMA, **settings("awq", bits=4, group_size=32)}, awq, "BF16"),
    "awq without zeros": ({**LLAMA, **settings("awq", bits=4, group_size=32)}, symmetric, "F16"),
    "gptq in AWQ's layout": ({**LLAMA, **settings("gptq", bits=4, group_size=32, desc_act=False)}, awq, "F16"),
    "mxfp4": ({**LLAMA, **settings("mxfp4")}, microscaled(4, 32, "exponent", "U8"), "BF16"),
    "mxfp8": ({**LLAMA, **settings("mxfp8")}, microscaled(8, 32, "exponent", "U8"), "BF16"),
    "fp8 that is mxfp8": (
        {**LLAMA, **settings("fp8", scale_fmt="ue8m0", weight_block_size=[32, 32])}, microscaled(8, 32, "exponent", "U8"), "BF16",
    ),
    "compressed-tensors, nvfp4": (
        {**LLAMA, **settings("compressed-tensors", format="nvfp4-pack-quantized")}, microscaled(4, 16, "fp8 scale", "U8"), "BF16",
    ),
    "compressed-tensors, mxfp4": (
        {**LLAMA, **settings("compressed-tensors", format="mxfp4-pack-quantized")}, microscaled(4, 32, "exponent", "U8"), "BF16",
    ),
    "modelopt": ({**LLAMA, **settings("modelopt", quant_algo="NVFP4")}, microscaled(4, 16, "fp8 scale", "U8"), "BF16"),
    "bitnet": ({**BITNET, **settings("bitnet", linear_class="autobitlinear")}, ternary, "BF16"),
    "bitnet in a llama": ({**LLAMA, **settings("bitnet", modules_to_not_convert=["lm_head"])}, ternary, "BF16"),
}

REFUSED = {
    "awq of 8 bits": ({**LLAMA, **settings("awq", bits=8)}, awq),
    "gptq of 3 bits": ({**LLAMA, **settings("gptq", bits=3)}, awq),
    "compressed-tensors of 8-bit floats": ({**LLAMA, **settings("compressed-tensors", format="float-quantized")}, awq),
    "modelopt of 8-bit floats": ({**LLAMA, **settings("modelopt", quant_algo="FP8")}, awq),
}


def bitlinear(self, x, packed):
    """The Metal kernel's sum, for the CPU: ternary values of rows i, i + N / 4, …, summed in float32."""
    rows = mx.concatenate([(packed >> shift) & 3 for shift in (0, 2, 4, 6)]).astype(mx.float32) - 1
    scale = self.weight_scale.astype(mx.float32)
    return ((x.astype(mx.float32) @ rows.T) * (1 / scale if self.invert_weight_scales else scale)).astype(x.dtype)


bitlinear_layers.BitLinear.execute_matmul_kernel = bitlinear


def hashed(x):
    bits = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}[x.itemsize]
    return [str(x.dtype).split(".")[-1], list(x.shape), hashlib.sha256(np.array(x.view(bits)).tobytes()).hexdigest()[:16]]


def loaded(folder):
    model, config = load_model(folder)
    ids = mx.array([[token % config["vocab_size"] for token in PROMPT]])
    tensors = {name: hashed(x) for name, x in sorted(tree_flatten(model.parameters()))}
    # MLX's CPU kernels sum in the activations' dtype: in half precision their logits are some percent off.
    model.set_dtype(mx.float32)
    return {
        "quantization": config.get("quantization"),
        "tensors": tensors,
        "logits": encode.float32(model(ids)[0, -1]),
    }


def case(folder, config, tensors, data=None):
    save(folder, config, tensors, data)
    return {"config": config, "source": tensors, **loaded(folder)}


def words(values, order):
    """(R, C) four-bit values -> (R, C / 8) words."""
    R, C = values.shape
    shifts = np.array(order, dtype=np.uint32) * 4
    return (values.reshape(R, C // 8, 8).astype(np.uint32) << shifts).sum(axis=-1, dtype=np.uint32)


def gptq(folder, config):
    """The same values in AWQ's layout for mlx-lm, and in GPTQ's own for us: the models must be the same."""
    theirs, ours, data = {}, {}, {}
    plain, mixed = list(range(8)), [0, 4, 1, 5, 2, 6, 3, 7]
    for name, tensor in checkpoint(config, awq, "F16").items():
        path = name.removesuffix(".qweight")
        theirs[name] = tensor
        if path == name:
            if not name.endswith(".qzeros"):
                ours[name] = tensor
            continue
        K, N = tensor[2][0], tensor[2][1] * 8
        ours[name] = ["bits", "I32", (K // 8, N)]
        ours[f"{path}.qzeros"] = ["bits", "I32", (K // 32, N // 8)]
        ours[f"{path}.g_idx"] = ["groups of 32", "I32", (K,)]
        size = K // 8 * N * 4
        q = np.frombuffer(np.floor((uniform(name, size) + 1) * 128).astype(np.uint8), np.uint32).reshape(K // 8, N)
        q = ((q[:, None, :] >> (np.arange(8, dtype=np.uint32) * 4)[None, :, None]) & 15).reshape(K, N)
        size = K // 32 * N // 2
        z = np.frombuffer(np.floor((uniform(f"{path}.qzeros", size) + 1) * 128).astype(np.uint8), np.uint32)
        z = ((z.reshape(K // 32, N // 8, 1) >> (np.arange(8, dtype=np.uint32) * 4)) & 15).reshape(K // 32, N)
        data[name] = words(q, mixed).tobytes()
        data[f"{path}.qzeros"] = words((z + 1) & 15, mixed).tobytes()
    return {**case(folder, config, theirs, data), "source": ours}


def dequantized(folder, config, a, b):
    """Blocks of 128 go through the reference's own function, in the sanitize of a model that has it."""
    tensors = checkpoint(config, blocks(a, b), "BF16")
    save(folder, config, tensors)
    nothing = SimpleNamespace(args=SimpleNamespace(num_hidden_layers=0, num_local_experts=0))
    weights = minimax.Model.sanitize(nothing, mx.load(str(folder / "model.safetensors")))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    (folder / "config.json").write_text(json.dumps(plain))
    return {"config": config, "source": tensors, **loaded(folder)}


def compressed(folder, config):
    """mlx-lm renames these tensors in some models only; here for any, as those do."""
    tensors = checkpoint(config, integers, "BF16")
    save(folder, config, tensors)
    weights = mx.load(str(folder / "model.safetensors"))
    for name in [name for name in weights if name.endswith("weight_shape")]:
        base = name.removesuffix("weight_shape")
        weights.pop(name)
        weights[f"{base}weight"] = weights.pop(f"{base}weight_packed").view(mx.uint32)
        weights[f"{base}scales"] = weights.pop(f"{base}weight_scale")
        weights[f"{base}biases"] = -8 * weights[f"{base}scales"]
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return {"config": config, "source": tensors, **loaded(folder)}


def refusal(folder, config, packed):
    save(folder, config, checkpoint(config, packed, "F16"))
    try:
        load_model(folder)
    except ValueError as error:
        return {"config": config, "source": checkpoint(config, packed, "F16"), "error": str(error)}
    raise AssertionError("not refused")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = {
            name: case(folder, config, checkpoint(config, packed, dtype)) for name, (config, packed, dtype) in CASES.items()
        }
        cases["gptq"] = gptq(folder, {**LLAMA, **settings("gptq", bits=4, group_size=32, desc_act=False)})
        cases["fp8 in blocks"] = dequantized(folder, {**WIDE, **settings("fp8", weight_block_size=[128, 128])}, 128, 128)
        cases["compressed-tensors, integers"] = compressed(
            folder, {**LLAMA, **settings("compressed-tensors", format="pack-quantized")}
        )
        refused = {name: refusal(folder, *args) for name, args in REFUSED.items()}
    encode.write("formats.json", {"prompt": PROMPT, "cases": cases, "refused": refused})
