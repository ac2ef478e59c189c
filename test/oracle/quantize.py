"""Quantization fixtures: every mode, width and group size that MLX takes, through all five quantized operations."""

import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx

import encode
from weights import uniform

MODES = [("affine", bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)]
MODES += [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]
LHS, RHS = [0, 1, 1], [2, 0, 2]


def formula(key, *shape):
    size = 1
    for n in shape:
        size *= n
    return mx.array(uniform(key, size)).reshape(shape)


def fixture(mode, bits, group):
    options = {"mode": mode, "bits": bits, "group_size": group}
    w, experts, x = formula("w", 4, 128), formula("experts", 3, 4, 128), formula("x", 2, 1, 128)
    packed = mx.quantize(w, **options)
    matmul = mx.quantized_matmul(x, *packed, **options)
    across = mx.quantized_matmul(formula("y", 1, 4), *packed, transpose=False, **options)
    chosen = {"lhs_indices": mx.array(LHS), "rhs_indices": mx.array(RHS)}
    gathered = mx.gather_qmm(x, *mx.quantize(experts, **options), **chosen, **options)
    gradient = mx.grad(lambda x: mx.quantized_matmul(x, *packed, **options).square().sum())(x)
    return {
        "mode": mode,
        "bits": bits,
        "groupSize": group,
        "packed": packed[0].tolist(),
        "scales": encode.tensor(packed[1]),
        "biases": encode.tensor(packed[2]) if mode == "affine" else None,
        "dequantized": encode.float32(mx.dequantize(*packed, **options)[:, ::8]),
        "matmul": encode.float32(matmul),
        "across": encode.float32(across[:, ::8]),
        "gathered": encode.float32(gathered),
        "gradient": encode.float32(gradient[..., ::8]),
    }


if __name__ == "__main__":
    encode.write_lines("quantize.json", [fixture(*mode) for mode in MODES])
