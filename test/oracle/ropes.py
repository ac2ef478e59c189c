"""Rotary embeddings of every kind that mlx-lm's initialize_rope knows, at the start and far into a sequence."""

import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
from mlx_lm.models.rope_utils import SuScaledRoPE, initialize_rope

import encode

FACTORS = [1.0, 1.25, 1.5, 2.0, 3.0, 4.5, 6.0, 8.0]
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 256}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
# dims, base, traditional, scaling, maximal positions
KINDS = {
    "default": (16, 10000.0, False, None, None),
    "traditional": (16, 10000.0, True, {"rope_type": "default"}, 2048),
    "part of the head": (8, 10000.0, False, None, None),
    "linear": (16, 10000.0, False, {"type": "linear", "factor": 8.0}, 2048),
    "dynamic": (16, 10000.0, False, {"type": "dynamic", "factor": 2.0}, 64),
    "llama3": (16, 500000.0, False, LLAMA3, 2048),
    "llama3 by its defaults": (16, 500000.0, True, {"rope_type": "llama3", "factor": 32.0}, 2048),
    "yarn": (16, 10000.0, False, YARN, 512),
    "yarn with all its numbers": (
        16, 1e6, True, {**YARN, "type": "deepseek_yarn", "beta_fast": 16, "beta_slow": 2, "mscale": 0.8,
                        "mscale_all_dim": 0.5}, 512,
    ),
    "yarn without a ramp": (16, 10000.0, False, {**YARN, "beta_fast": 2, "beta_slow": 2}, 512),
    "longrope": (
        16, 10000.0, False, {"type": "longrope", "original_max_position_embeddings": 128, "short_factor": FACTORS,
                             "long_factor": FACTORS}, 1024,
    ),
    "proportional": (16, 10000.0, False, {"type": "proportional", "partial_rotary_factor": 0.5, "factor": 2.0}, None),
    "mrope": (16, 10000.0, False, {"type": "mrope", "mrope_section": [2, 3, 3]}, None),
}
OFFSETS = [0, 3, 777]


def heads():
    """(1, 2, 3, 16): two heads, three positions."""
    return ((mx.arange(96) * 37) % 101 / 101 - 0.5).reshape(1, 2, 3, 16)


def rows():
    for name, (dims, base, traditional, scaling, positions) in KINDS.items():
        rope = initialize_rope(dims, base, traditional, scaling, positions)
        outputs = [encode.float32(rope(heads(), offset)) for offset in OFFSETS]
        yield {"name": name, "dims": dims, "base": base, "traditional": traditional, "scaling": scaling,
               "maxPositions": positions, "outputs": outputs}


encode.write("ropes.json", {"offsets": OFFSETS, "rows": list(rows())})
