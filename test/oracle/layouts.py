"""Checkpoints as gpt-oss and DeepSeek V3's family are published: what mlx-lm's loader makes of them, and the text.

    python layouts.py [--search NAME]

As in formats.py, the fixture says how each tensor is made. A tensor's formula takes the tensor's name with the case's
salt, which picks a draw whose greedy choices are far from a tie.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, load_model, quantize_model

import encode
from architectures import CONFIGS
from formats import PROMPT, bytes_of, hashed, save, settings
from models import greedy_of

COUNT = 20
OSS = CONFIGS["gpt_oss"]
DEEPSEEK = {**CONFIGS["deepseek_v3"], "num_hidden_layers": 3}
# Wider than a block of 128, by no whole number of blocks.
WIDE = {
    **DEEPSEEK, "hidden_size": 160, "intermediate_size": 192, "moe_intermediate_size": 136, "n_routed_experts": 4,
    "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "q_lora_rank": 144, "kv_lora_rank": 136, "num_hidden_layers": 2,
}
PLAIN = {**DEEPSEEK, "q_lora_rank": None, "attention_bias": True, "n_group": 1, "topk_group": 1, "rope_scaling": None}
BF16 = "BF16"


def plain(N, K):
    return {"weight": ["weight", BF16, [N, K]]}


def packed(N, K):
    """MLX's own four bits, as older conversions of DeepSeek have them."""
    return {
        "weight": ["bits", "U32", [N, K // 8]], "scales": ["scale", BF16, [N, K // 32]],
        "biases": ["zero of 8", BF16, [N, K // 32]],
    }


def blocks(N, K):
    return {"weight": ["fp8", "F8_E4M3", [N, K]], "weight_scale_inv": ["scale", "F32", [-(-N // 128), -(-K // 128)]]}


def integers(N, K):
    return {
        "weight_packed": ["bits", "I32", [N, K // 8]], "weight_scale": ["scale", BF16, [N, K // 32]],
        "weight_shape": ["bits", "I32", [2]],
    }


def placed(prefix, tensors):
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def oss(experts):
    """gpt-oss with its experts as `experts(name, rows, inputs)` has them."""
    D, E, heads = OSS["hidden_size"], OSS["num_local_experts"], OSS["num_attention_heads"]
    wide, narrow = heads * OSS["head_dim"], OSS["num_key_value_heads"] * OSS["head_dim"]
    tensors = {"model.embed_tokens.weight": ["weight", BF16, [OSS["vocab_size"], D]]}
    for i in range(OSS["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        tensors[f"{layer}.self_attn.sinks"] = ["weight", BF16, [heads]]
        for name, (N, K) in {
            "self_attn.q_proj": (wide, D), "self_attn.k_proj": (narrow, D), "self_attn.v_proj": (narrow, D),
            "self_attn.o_proj": (D, wide), "mlp.router": (E, D),
        }.items():
            tensors |= placed(f"{layer}.{name}", {**plain(N, K), "bias": ["weight", BF16, [N]]})
        for name, (N, K) in {"gate_up_proj": (2 * OSS["intermediate_size"], D), "down_proj": (D, OSS["intermediate_size"])}.items():
            path = f"{layer}.mlp.experts.{name}"
            tensors |= {f"{path}{kind}": tensor for kind, tensor in experts(E, N, K).items()}
            tensors[f"{path}_bias"] = ["weight", BF16, [E, N]]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}.{norm}.weight"] = ["weight", BF16, [D]]
    tensors["model.norm.weight"] = ["weight", BF16, [D]]
    tensors["lm_head.weight"] = ["weight", BF16, [OSS["vocab_size"], D]]
    return tensors


def microscaled(E, N, K):
    return {"_blocks": ["bits", "U8", [E, N, K // 32, 16]], "_scales": ["exponent", "U8", [E, N, K // 32]]}


def unpacked(E, N, K):
    """As transformers saves it: inputs ahead of outputs."""
    return {"": ["weight", BF16, [E, K, N]]}


def deepseek(config, linear=plain, expert=None, keys_values=None, head=plain):
    """DeepSeek V3 with layers after the last that predict further tokens."""
    D, heads, rank = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    turned, key, value = config["qk_rope_head_dim"], config["qk_nope_head_dim"], config["v_head_dim"]
    bias = config["attention_bias"]
    tensors = placed("model.embed_tokens", head(config["vocab_size"], D))

    def biased(name, N, K):
        return placed(name, {**linear(N, K), **({"bias": ["weight", BF16, [N]]} if bias else {})})

    def gated(path, hidden, form):
        return placed(f"{path}.gate_proj", form(hidden, D)) | placed(f"{path}.up_proj", form(hidden, D)) | placed(f"{path}.down_proj", form(D, hidden))

    for i in range(config["num_hidden_layers"] + 1):
        layer = f"model.layers.{i}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        if config["q_lora_rank"]:
            tensors |= biased(f"{attention}.q_a_proj", config["q_lora_rank"], D)
            tensors[f"{attention}.q_a_layernorm.weight"] = ["weight", BF16, [config["q_lora_rank"]]]
            tensors |= placed(f"{attention}.q_b_proj", linear(heads * (key + turned), config["q_lora_rank"]))
        else:
            tensors |= placed(f"{attention}.q_proj", linear(heads * (key + turned), D))
        tensors |= biased(f"{attention}.kv_a_proj_with_mqa", rank + turned, D)
        tensors[f"{attention}.kv_a_layernorm.weight"] = ["weight", BF16, [rank]]
        tensors |= placed(f"{attention}.kv_b_proj", (keys_values or linear)(heads * (key + value), rank))
        tensors |= biased(f"{attention}.o_proj", D, heads * value)
        if i < config["first_k_dense_replace"]:
            tensors |= gated(mlp, config["intermediate_size"], linear)
        else:
            experts, hidden = config["n_routed_experts"], config["moe_intermediate_size"]
            tensors[f"{mlp}.gate.weight"] = ["weight", BF16, [experts, D]]
            tensors[f"{mlp}.gate.e_score_correction_bias"] = ["weight", "F32", [experts]]
            for e in range(experts):
                tensors |= gated(f"{mlp}.experts.{e}", hidden, expert or linear)
            tensors |= gated(f"{mlp}.shared_experts", hidden * config["n_shared_experts"], linear)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}.{norm}.weight"] = ["weight", BF16, [D]]
    further = f"model.layers.{config['num_hidden_layers']}"
    for name in ("enorm", "hnorm", "shared_head.norm"):
        tensors[f"{further}.{name}.weight"] = ["weight", BF16, [D]]
    tensors |= placed(f"{further}.eh_proj", plain(D, 2 * D)) | placed(f"{further}.shared_head.head", plain(config["vocab_size"], D))
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = ["weight", "F32", [turned // 2]]
    tensors["model.norm.weight"] = ["weight", BF16, [D]]
    return tensors | placed("lm_head", head(config["vocab_size"], D))


def converted(config):
    """As `mlx_lm.convert -q` writes it: sanitized, packed, and with entries for layers that differ."""
    Model, Args = _get_classes(config)
    model = Model(Args.from_dict(config))
    common = {"group_size": 32, "bits": 4}
    _, written = quantize_model(model, config, **common, mode="affine", quant_predicate=getattr(model, "quant_predicate", None))
    kinds = {"weight": "bits", "scales": "scale", "biases": "zero of 8"}
    sources = {}
    shapes = {name: x for name, x in tree_flatten(model.parameters())}
    for name, x in shapes.items():
        path, _, kind = name.rpartition(".")
        if f"{path}.scales" in shapes and kind in kinds:
            sources[name] = [kinds[kind], "U32" if kind == "weight" else BF16, list(x.shape)]
        else:
            sources[name] = ["weight", "F32" if kind == "e_score_correction_bias" else BF16, list(x.shape)]
    return {**config, "quantization": written["quantization"], "quantization_config": written["quantization"]}, sources


K2 = settings(
    "compressed-tensors", format="pack-quantized", ignore=["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
    config_groups={"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32, "symmetric": True, "strategy": "group", "type": "int"}}},
)
QUANTIZED = {"quantization": {"group_size": 32, "bits": 4}}
CASES = {
    "gpt_oss, mxfp4 experts": (
        {**OSS, **settings("mxfp4", modules_to_not_convert=["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"])}, oss(microscaled), 0,
    ),
    "gpt_oss, experts as transformers saves them": (OSS, oss(unpacked), 2),
    "deepseek_v3, single experts": (DEEPSEEK, deepseek(DEEPSEEK), 0),
    "deepseek_v3, biases, no rank of queries, one group": (PLAIN, deepseek(PLAIN), 1),
    "deepseek_v3, keys and values packed": ({**DEEPSEEK, **QUANTIZED}, deepseek(DEEPSEEK, packed, head=packed), 0),
    "deepseek_v3, fp8 in blocks": (
        {**WIDE, **settings("fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[128, 128])}, deepseek(WIDE, blocks), 0,
    ),
    "gpt_oss, as mlx-lm converts it": (*converted(OSS), 3),
    "deepseek_v3, as mlx-lm converts it": (*converted(DEEPSEEK), 3),
    "kimi_k2, experts of integers": ({**DEEPSEEK, "model_type": "kimi_k2", **K2}, deepseek(DEEPSEEK, expert=integers), 0),
}


def as_mlx_lm_reads_it(config, source, data):
    """mlx-lm drops the layers that predict further tokens where there are 61 others, and takes experts that are not packed
    only when they are apart, with outputs ahead of inputs."""
    tensors, changed = {}, {}

    def take(name, x):
        changed[name] = np.array(x.view(mx.uint8)).tobytes()
        tensors[name] = ["weight", BF16, list(x.shape)]

    for name, (kind, dtype, shape) in source.items():
        if name.startswith(f"model.layers.{config['num_hidden_layers']}."):
            continue
        raw = mx.array(np.frombuffer(data[name], np.uint8)).view(mx.bfloat16).reshape(shape) if dtype == BF16 else None
        if name.endswith("gate_up_proj"):
            for part, first in (("gate_proj", 0), ("up_proj", 1)):
                take(name.replace("gate_up_proj", f"{part}.weight"), mx.contiguous(raw[..., first::2].swapaxes(1, 2)))
        elif name.endswith("experts.down_proj"):
            take(f"{name}.weight", mx.contiguous(raw.swapaxes(1, 2)))
        elif name.endswith("gate_up_proj_bias") and name.replace("_bias", "") in source:
            for part, first in (("gate_proj", 0), ("up_proj", 1)):
                take(name.replace("gate_up_proj_bias", f"{part}.bias"), mx.contiguous(raw[..., first::2]))
        elif name.endswith("down_proj_bias") and name.replace("_bias", "") in source:
            take(name.replace("_bias", ".bias"), raw)
        else:
            tensors[name], changed[name] = source[name], data[name]
    return tensors, changed


def case(folder, name, config, source, salt):
    data = {path: bytes_of(kind, path, dtype, shape, salt) for path, (kind, dtype, shape) in source.items()}
    save(folder, config, *as_mlx_lm_reads_it(config, source, data))
    model, loaded = load_model(folder)
    tensors = {path: hashed(x) for path, x in sorted(tree_flatten(model.parameters()))}
    # MLX's CPU kernels sum in the activations' dtype: in half precision their logits are some percent off.
    model.set_dtype(mx.float32)
    logits = model(mx.array([PROMPT]))[0, -1]
    tokens, gap = greedy_of(model, PROMPT, COUNT)
    print(f"  {name}: smallest gap {gap:.1e}, {len(set(tokens))} distinct of {COUNT}")
    return {
        "config": config, "source": source, "salt": salt, "quantization": loaded.get("quantization"), "tensors": tensors,
        "logits": encode.float32(logits), "greedy": tokens,
    }, gap


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "--search" in sys.argv:
            chosen = sys.argv[-1]
            config, source, _ = CASES[chosen]
            for salt in range(20):
                print(salt, end="")
                case(folder, chosen, config, source, salt)
        else:
            encode.write("layouts.json", {"prompt": PROMPT, "cases": {chosen: case(folder, chosen, *of)[0] for chosen, of in CASES.items()}})
