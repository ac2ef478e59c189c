"""What `mlx_lm.convert` makes of test/fixtures/checkpoint: configurations, bits per weight, a hash of every tensor."""

import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
from pathlib import Path

os.environ["MLX_DISABLE_COMPILE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import mlx.core as mx
import numpy as np
from mlx_lm import convert

import encode

SOURCE = encode.FIXTURES / "checkpoint"
CASES = {
    "affine": {"quantize": True, "q_group_size": 32},
    "8 bits": {"quantize": True, "q_bits": 8, "q_group_size": 32},
    "mxfp4": {"quantize": True, "q_mode": "mxfp4"},
    "nvfp4": {"quantize": True, "q_mode": "nvfp4"},
    "mxfp8": {"quantize": True, "q_mode": "mxfp8"},
    "mixed_2_6": {"quantize": True, "quant_predicate": "mixed_2_6", "q_group_size": 32},
    "mixed_3_4": {"quantize": True, "quant_predicate": "mixed_3_4", "q_group_size": 32},
    "float16": {"dtype": "float16"},
    "bfloat16, quantized": {"quantize": True, "dtype": "bfloat16", "q_group_size": 32},
}


def hashed(x):
    bits = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}[x.itemsize]
    return [str(x.dtype).split(".")[-1], list(x.shape), hashlib.sha256(np.array(x.view(bits)).tobytes()).hexdigest()[:16]]


def result(folder, printed):
    weights = mx.load(str(folder / "model.safetensors"))
    bits = re.search(r"with ([\d.]+) bits", printed)
    return {
        "config": json.loads((folder / "config.json").read_text()),
        "index": json.loads((folder / "model.safetensors.index.json").read_text()),
        "bits_per_weight": float(bits.group(1)) if bits else None,
        "tensors": {name: hashed(x) for name, x in sorted(weights.items())},
    }


def run(source, target, options):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        convert(str(source), str(target), **options)
    return result(target, printed.getvalue())


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    plain = run(SOURCE, folder / "plain", {"dequantize": True})
    cases = {
        name: {"options": options, **run(folder / "plain", folder / re.sub(r"\W", "_", name), options)}
        for name, options in CASES.items()
    }
    encode.write("convert.json", {"dequantized": plain, "cases": cases})
