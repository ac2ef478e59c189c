"""Filters, samplers and logits processors: what mlx-lm's leave, draw and change, for a batch of two rows."""

import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
from mlx_lm.sample_utils import make_logits_processors, make_sampler

import encode

SEED, DRAWS = 7, 12
SAMPLERS = [
    {"temp": 1.0},
    {"temp": 0.7, "top_p": 0.5},
    {"temp": 1.5, "top_p": 0.99},
    {"temp": 1.0, "min_p": 0.2},
    {"temp": 1.0, "min_p": 0.9, "min_tokens_to_keep": 5},
    {"temp": 1.3, "top_k": 3},
    {"temp": 1.0, "xtc_probability": 0.5, "xtc_threshold": 0.04},
    {"temp": 1.0, "xtc_probability": 1.0, "xtc_threshold": 0.02, "xtc_special_tokens": [3, 17]},
    {"temp": 0.9, "top_p": 0.9, "min_p": 0.05, "xtc_probability": 0.4, "xtc_threshold": 0.05, "top_k": 6},
]
TOKENS = [3, 5, 3, 11, 5, 3, 0, 31, 8, 3]
PROCESSORS = [
    {"logit_bias": {0: 2.5, 31: -4.0}},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 1.3, "repetition_context_size": 3},
    {"presence_penalty": 0.75},
    {"frequency_penalty": 0.5, "frequency_context_size": 6},
    {"logit_bias": {5: 1.0}, "repetition_penalty": 1.1, "presence_penalty": 0.25, "frequency_penalty": 0.125},
]


def logits(dtype=mx.float32):
    """(2, 32), no two alike in a row."""
    x = ((mx.arange(64) * 29) % 67 / 12 - 2.5).reshape(2, 32)
    return x.astype(dtype)


def draws(options, dtype):
    logprobs = logits(dtype) - mx.logsumexp(logits(dtype), axis=-1, keepdims=True)
    sampler = make_sampler(**options)
    mx.random.seed(SEED)
    return [sampler(logprobs).tolist() for _ in range(DRAWS)]


def processed(options, tokens):
    x = logits()
    for process in make_logits_processors(**options):
        x = process(mx.array(tokens), x)
    return encode.float32(x)


encode.write("samplers.json", {
    "seed": SEED,
    "samplers": [{"options": o, "float32": draws(o, mx.float32), "bfloat16": draws(o, mx.bfloat16)} for o in SAMPLERS],
    "tokens": TOKENS,
    "processors": [{"options": o, "logits": processed(o, TOKENS)} for o in PROCESSORS],
})
