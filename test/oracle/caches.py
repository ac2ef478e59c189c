"""Key-value caches under random sequences of updates, masks and trims. A token's key is its number, its value minus it."""

import os
import random

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache

import encode

# Maximal size and kept tokens (none: the growing cache), window asked of masks, lengths of updates to choose from.
KINDS = [
    (None, 0, None, [1, 1, 1, 3, 7]),
    (None, 0, 4, [1, 1, 2, 5]),
    (None, 0, None, [1, 255, 256, 257, 100]),
    (8, 0, 8, [1, 1, 1, 2, 3]),
    (8, 0, None, [1]),
    (8, 2, None, [1, 1, 1, 1, 4]),
    (8, 0, 3, [1, 1, 1, 2, 9]),
    (5, 1, 5, [1, 1, 12]),
    (300, 4, 300, [1, 1, 1, 150, 90]),
    (8, 3, 8, [9, 1, 1, 1, 1, 1]),
]
UPDATES = 14


def runs(tokens):
    """[3, 4, 5, 0] -> [[3, 3], [0, 1]]: where runs of consecutive numbers begin, and their lengths."""
    found = []
    for token in tokens:
        if found and token == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([token, 1])
    return found


def mask_of(mask):
    if mask is None or isinstance(mask, str):
        return mask
    rows = mask.tolist() if mask.ndim == 2 else [mask.tolist()]
    return ["".join("01"[x] for x in row) for row in rows]


def sequence(seed, size, keep, window, lengths):
    choose = random.Random(seed)
    cache = KVCache() if size is None else RotatingKVCache(size, keep)
    steps, token = [], 1
    for _ in range(UPDATES):
        if choose.random() < 0.15 and cache.is_trimmable() and not cache.empty():
            asked = choose.randint(1, 4)
            steps.append({"trim": asked, "trimmed": cache.trim(asked)})
        length = choose.choice(lengths)
        mask = mask_of(cache.make_mask(length, window_size=window, return_array=False))
        tokens = mx.arange(token, token + length, dtype=mx.float32).reshape(1, 1, length, 1)
        token += length
        keys, values = cache.update_and_fetch(tokens, -tokens)
        assert mx.array_equal(keys, -values)
        step = {"length": length, "keys": runs([int(k) for k in keys.flatten().tolist()]),
                "offset": cache.offset, "size": cache.size(), "rows": cache.keys.shape[2]}
        steps.append(step | ({"mask": mask} if length < 20 else {}))
    return {"size": size, "keep": keep, "window": window, "steps": steps}


encode.write_lines("caches.json", [sequence(seed, *kind) for kind in KINDS for seed in range(2)])
