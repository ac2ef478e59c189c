"""Values rounded as mlx-lm's DeepSeek V4.1 rounds them: as if packed in few bits and unpacked again."""

import mlx.core as mx
import numpy as np
from mlx_lm.models import deepseek_v41

import encode
from weights import uniform

# Sizes from far below the least scale to far above the largest, and numbers halfway between two of E2M1's.
SIZES = [1e-30, 1e-6, 0.01, 1.0, 37.0, 5000.0, 1e6, 1.0]
HALVES = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0] * 4


def rows():
    drawn = uniform("rounding", len(SIZES) * 64).reshape(len(SIZES), 64) * np.float32(SIZES)[:, None]
    return mx.array(np.concatenate([drawn, [HALVES + [-x for x in HALVES]]]).astype(np.float32))


if __name__ == "__main__":
    x = rows()
    kinds = {
        "coarse8": deepseek_v41._fake_quant_fp8(x, 32),
        "coarse4": deepseek_v41._fake_quant_fp4(x, block_size=32),
        "coarse4ByE4m3": deepseek_v41._fake_quant_fp4(x, block_size=16, e4m3_scale=True),
    }
    encode.write("rounding.json", {"inputs": encode.float32(x), "shape": list(x.shape),
                                   "rounded": {name: encode.float32(y) for name, y in kinds.items()}})
