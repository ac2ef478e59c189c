"""Weights by formula: a value depends on the parameter's name, its index and a salt, and on nothing else.

test/parity/weights.ts is the same formula. Every step is integer arithmetic modulo 2**32, or a float
operation whose result is rounded to float32 once, so both languages give the same bits.
"""

import math

import numpy as np


def fnv1a(text):
    """FNV-1a, 32 bits, of the text's UTF-8 bytes."""
    h = 0x811C9DC5
    for byte in text.encode():
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    return h


def uniform(key, size):
    """`size` float32 values in [-1, 1), multiples of 2**-23: a Weyl sequence from the key, mixed as in MurmurHash3."""
    x = np.uint32(fnv1a(key)) + np.arange(size, dtype=np.uint32) * np.uint32(0x9E3779B9)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    return ((x >> np.uint32(8)).astype(np.float64) / 2**23 - 1).astype(np.float32)


# From this salt on biases of norms are like all biases, and the names of GPT-2 and others are known; tables of experts
# have those of eight.
NAMED = 1000


def scale(name, shape, salt=0):
    """(centre, spread) by kind: norms lie around 1, biases are small, matrices keep the scale of their input.

    Embeddings and the output head are wider, so that logits differ enough for a stable argmax.
    """
    if salt >= NAMED and name.endswith("tid2eid"):
        return 4.0, 4.0
    if salt >= NAMED and name.endswith("bias"):
        return 0.0, 0.125
    # DBRX calls a whole part of its layers so.
    if "norm" in name.replace("norm_attn_norm.", "") or salt >= NAMED and ("ln_" in name or ".ln." in name):
        return 1.0, 0.25
    if name.endswith("bias"):
        return 0.0, 0.125
    names = ("wte", "embed_in", "embed_out", "tok_embeddings", "output.weight") if salt >= NAMED else ()
    wide = any(part in name for part in ("embed_tokens", "lm_head", *names))
    return 0.0, (2.0 if wide else 1.5) * math.sqrt(3.0 / (shape[-1] if shape else 1))


def weight(name, shape, salt=0):
    centre, spread = scale(name, shape, salt)
    u = uniform(f"{salt}/{name}", math.prod(shape)).reshape(shape)
    return np.float32(centre) + u * np.float32(spread)


CHECKS = [
    ("model.embed_tokens.weight", (4, 8)), ("model.layers.0.self_attn.q_proj.weight", (3, 5)),
    ("model.layers.1.input_layernorm.weight", (7,)), ("model.layers.1.self_attn.q_proj.bias", (7,)),
    ("lm_head.weight", (2, 3)), ("größe.你好.weight", (2, 2)),
]

if __name__ == "__main__":
    import mlx.core as mx

    import encode

    rows = [
        {"name": name, "shape": shape, "salt": salt, "values": encode.float32(mx.array(weight(name, shape, salt)))}
        for salt, (name, shape) in enumerate(CHECKS)
    ]
    encode.write_lines("weights.json", rows)
