"""Muse Spark as published: experts in NVFP4 with a scale for each expert. What mlx-lm's loader makes of it, and the logits.

MLX's gather_qmm knows such scales on GPUs only. Here it is the definition: weights unpacked in float32, times their scale.
"""

import tempfile
from pathlib import Path

import mlx.core as mx

import encode
from architectures import CONFIGS, checkpoint
from formats import PROMPT, hashed, save
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, load_model
from unfused import made_for, unfuse_muse_spark

LARGEST = 6 * 448


def gather_qmm(x, w, scales, biases, *, rhs_indices, transpose, group_size, bits, mode, global_scale, sorted_indices):
    unpacked = mx.dequantize(w, scales, None, group_size, bits, mode, dtype=mx.float32)
    if global_scale is not None:
        unpacked = unpacked * (global_scale / LARGEST)[:, None, None]
    return mx.gather_mm(x.astype(mx.float32), unpacked.swapaxes(-1, -2), rhs_indices=rhs_indices).astype(x.dtype)


def published(config):
    """name -> [kind, dtype, shape]: the inner layers' experts are packed, as in the checkpoint."""
    Model, Args = _get_classes(config)
    shapes = checkpoint("muse_spark", tree_flatten(Model(Args.from_dict(config)).parameters()))
    tensors = {}
    for name, shape in shapes.items():
        is_packed = name.endswith(("experts.gate_up_proj", "experts.down_proj")) and (".1." in name or ".2." in name)
        if not is_packed:
            tensors[name] = ["weight", "BF16", shape]
            continue
        E, N, K = shape
        tensors[name] = ["bits", "U8", [E, N, K // 2]]
        tensors[f"{name}_weight_scale"] = ["fp8 scale", "F8_E4M3", [E, N, K // 16]]
        tensors[f"{name}_weight_scale_2"] = ["scale", "F32", [E, 2] if "gate_up" in name else [E]]
        tensors[f"{name}_input_scale"] = ["scale", "F32", [E]]
    return tensors


def loaded(folder):
    made_for(mx.bfloat16)
    model, config = load_model(folder)
    tensors = {name: hashed(x) for name, x in sorted(tree_flatten(model.parameters()))}
    made_for(mx.float32)
    model.set_dtype(mx.float32)
    logits = encode.float32(model(mx.array([PROMPT]))[0, -1])
    return {"prompt": PROMPT, "quantization": config["quantization"], "tensors": tensors, "logits": logits}


if __name__ == "__main__":
    mx.gather_qmm = gather_qmm
    unfuse_muse_spark()
    config = {
        **CONFIGS["muse_spark"],
        "quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "ignore": ["lm_head"]},
    }
    with tempfile.TemporaryDirectory() as name:
        folder, tensors = Path(name), published(config)
        save(folder, config, tensors)
        encode.write("expert-scales.json", {"config": config, "source": tensors, **loaded(folder)})
