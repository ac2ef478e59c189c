"""Prompt-cache files of every kind of cache, and what a model continues with after one."""

import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import base64
import gzip
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.models import cache as caches
from mlx_lm.models import llama

import encode
from kv_quantization import CONFIG, SALT, PROMPT, model, shapes

TOKENS = 12


def numbers(*shape):
    size = 1
    for n in shape:
        size *= n
    return (mx.arange(size, dtype=mx.float32) % 7 - 3).reshape(shape)


def filled(cache, length, width=4, heads=2, value_width=None):
    keys = numbers(1, heads, length, width)
    cache.update_and_fetch(keys, -keys[..., :value_width])
    return cache


def arrays(*values):
    cache = caches.ArraysCache(len(values))
    for i, value in enumerate(values):
        cache[i] = value
    return cache


KINDS = {
    "KVCache": [filled(caches.KVCache(), 5), caches.KVCache()],
    "RotatingKVCache": [filled(caches.RotatingKVCache(6, 2), 9), caches.RotatingKVCache(3)],
    "QuantizedKVCache": [filled(caches.QuantizedKVCache(32, 4), 3, 32), caches.QuantizedKVCache(64, 8)],
    "ConcatenateKVCache": [filled(caches.ConcatenateKVCache(), 4)],
    "ChunkedKVCache": [filled(caches.ChunkedKVCache(3), 4), caches.ChunkedKVCache(7)],
    "ArraysCache": [arrays(numbers(1, 3), numbers(1, 2, 2)), arrays(None, numbers(1, 2))],
    "CacheList": [caches.CacheList(filled(caches.KVCache(), 2), arrays(numbers(1, 1)))],
}

# Layers as models have them: several kinds side by side, and keys that differ from values in their size.
MODELS = {
    "recurrent and attention": [arrays(numbers(1, 3, 4), numbers(1, 2, 2)), filled(caches.KVCache(), 3), arrays(None, None)],
    "both in each layer": [caches.CacheList(arrays(numbers(1, 3)), filled(caches.KVCache(), 2)) for _ in range(2)],
    "latent attention": [filled(caches.KVCache(), 3, 8, 1, 4)],
    "an index without values": [caches.CacheList(filled(caches.KVCache(), 3, 8, 1, 4), filled(caches.KVCache(), 3, 6, 1, 0))],
    "windows and full attention": [filled(caches.RotatingKVCache(4), 6), filled(caches.KVCache(), 6)],
    "chunks and full attention": [filled(caches.ChunkedKVCache(4), 6), filled(caches.KVCache(), 6)],
    "attention packed, state not": [arrays(numbers(1, 3)), filled(caches.QuantizedKVCache(32, 4), 3, 32)],
    "lists in a list": [caches.CacheList(caches.CacheList(filled(caches.KVCache(), 2)), arrays(None))],
}


def file_of(cache, metadata=None):
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "cache.safetensors")
        caches.save_prompt_cache(path, cache, metadata)
        return base64.b64encode(gzip.compress(Path(path).read_bytes(), 9, mtime=0)).decode()


def continued(prefix, rest):
    """A file after the prefix, and the tokens after it and the rest of the prompt."""
    cache = caches.make_prompt_cache(model)
    for _ in generate_step(mx.array(prefix), model, max_tokens=0, prompt_cache=cache):
        pass
    # Buffers hold 256 rows: only those in use are kept here.
    for layer in cache:
        layer.keys, layer.values = (mx.contiguous(x[..., : layer.offset, :]) for x in (layer.keys, layer.values))
    file = file_of(cache, {"model": "tiny", "tokenizer_config": "{}"})
    tokens = [t for t, _ in generate_step(mx.array(rest), model, max_tokens=TOKENS, prompt_cache=cache)]
    return {"prefix": prefix, "rest": rest, "tokens": tokens, "file": file}


def check(folder):
    """Continues from the files in a folder that another program wrote: NAME.safetensors → printed tokens."""
    for path in sorted(Path(folder).glob("*.safetensors")):
        cache = caches.load_prompt_cache(str(path))
        rest = PROMPT[6:]
        print(path.stem, [t for t, _ in generate_step(mx.array(rest), model, max_tokens=TOKENS, prompt_cache=cache)])


def same(folder):
    """Files in a folder that another program wrote from ours, NAME.safetensors: loaded, the states are the same."""
    for path in sorted(Path(folder).glob("*.safetensors")):
        own = dict(tree_flatten([c.state for c in {**KINDS, **MODELS}[path.stem]]))
        theirs = dict(tree_flatten([c.state for c in caches.load_prompt_cache(str(path))]))
        equal = own.keys() == theirs.keys() and all(
            a.shape == b.shape and a.dtype == b.dtype and mx.array_equal(a, b).item() if isinstance(a, mx.array) else a == b
            for a, b in ((own[k], theirs[k]) for k in own)
        )
        print(path.stem, "same" if equal else "DIFFERENT")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        check(sys.argv[2])
    elif sys.argv[1:2] == ["--same"]:
        same(sys.argv[2])
    else:
        data = {"config": CONFIG, "salt": SALT, "weights": shapes, "kinds": {k: file_of(v) for k, v in KINDS.items()},
                "models": {k: {"classes": [type(c).__name__ for c in v], "file": file_of(v)} for k, v in MODELS.items()},
                "continued": continued(PROMPT[:6], PROMPT[6:])}
        encode.write("prompt-caches.json", data)
