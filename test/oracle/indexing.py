"""Indexing fixtures: x[...], x[...] = v and x.at[...].op(v) as Python's binding does them.

An index item is written so that any language can read it: 3 is an integer, {"slice": [start, stop, step]} a slice,
"..." an ellipsis, null a new axis, [0, 2] an integer array (nested for more dimensions), {"mask": [...]} a boolean
array, {"scalar": 3} an integer tensor without dimensions. What Python refuses is recorded as an error. Indices out
of range are not here: MLX reads past the end of the memory.
"""

import math
import os
import random

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx

import encode


class Index:
    """I[1:3, ..., None] is the tuple of its items."""

    def __getitem__(self, key):
        return key if isinstance(key, tuple) else (key,)


I = Index()
T, F = True, False


def ints(*values):
    return mx.array(values, dtype=mx.int32)


def mask(values):
    return mx.array(values, dtype=mx.bool_)


E = ...
PAIR = ints([0, 1], [1, 0])

READS = {
    (6,): [
        I[0], I[5], I[-1], I[-6], I[:], I[E], I[None], I[1:4], I[2:], I[:3], I[-3:], I[:-2], I[::2], I[1::3], I[::-1],
        I[4:1:-1], I[-1:-4:-1], I[5::-2], I[:2:-1], I[3:3], I[4:2], I[10:], I[-10:2], I[:100], I[100:0:-1], I[None, :],
        I[:, None], I[None, 2], I[2, None], I[None, 1:3, None], I[E, None], I[None, E], I[E, 2], I[2, E], I[E, 1:4],
        I[ints(0, 2)], I[[3, 1, 1]], I[ints(-1, -2)], I[PAIR], I[ints(4)], I[ints([2], [3])], I[mx.array(3)],
        I[mx.array(-1)], I[None, ints(0, 5)], I[ints(0, 5), None], I[E, ints(1, 2)], I[mx.array([5, 0], mx.uint32)],
        I[ints(0, 0, 0, 3)], I[mask([T, F, T, F, T, F])], I[0, 0], I[E, E],
    ],
    (4, 5): [
        I[0], I[-1], I[1, 2], I[-1, -1], I[3, 0], I[1:3], I[1:3, 1:4], I[:, 2], I[:, -1], I[2, :], I[2, 1:], I[::2, ::2],
        I[::-1], I[:, ::-1], I[::-1, ::-1], I[3:0:-2, 4:1:-1], I[-2:, -3:-1], I[:, 5:], I[0:0], I[None, 1], I[1, None],
        I[:, None, :], I[None, None, 1:2], I[:, :, None], I[E, 0], I[0, E], I[E, 1:3], I[E, None, 2], I[None, E, None],
        I[1, E, 2], I[E], I[ints(0, 2)], I[[1, 1, 3]], I[ints(-1, 0)], I[PAIR], I[:, ints(0, 4)], I[:, [1, 1]],
        I[:, PAIR], I[ints(0, 1), ints(2, 3)], I[ints(0, 1), 2], I[2, ints(0, 1)], I[ints(3), ints(0, 1, 2)],
        I[ints([0], [2]), ints(1, 3)], I[ints([0], [2]), ints([1], [3])], I[PAIR, PAIR], I[PAIR, 3], I[1, PAIR],
        I[ints(0, 3), 1:3], I[1:3, ints(0, 3)], I[ints(0, 3), ::-1], I[::2, ints(4, 0)], I[ints(0, 3), None],
        I[None, ints(0, 3)], I[None, :, ints(0, 3)], I[ints(0, 3), None, ints(1, 2)], I[E, ints(1, 2)], I[ints(1, 2), E],
        I[mx.array(1), mx.array(2)], I[mx.array(1), :], I[:, mx.array(-2)], I[[0, 1], [2, 3]], I[[0, 1], 2:4],
        I[mask([T, F, T, T])], I[0, 0, 0], I[E, 0, E],
    ],
    (2, 3, 4): [
        I[0], I[1, 2], I[1, 2, 3], I[-1, -1, -1], I[:, 1], I[:, :, 2], I[:, 1, :], I[1, :, 2], I[0, 1:, ::2], I[E, 1],
        I[0, E], I[0, E, 1], I[E, 1, 2], I[E, ::-1], I[E, ::-1, :], I[::-1, ::-1, ::-1], I[:, 2:0:-1, 3:0:-2], I[:, 1:2],
        I[1:, 1:, 1:], I[None, 0], I[0, None, 1], I[:, None, 1], I[None, :, None, 1:, None], I[E, None], I[None, E],
        I[:, None, E, None], I[None, 0, E, None, 1], I[ints(0, 1, 1)], I[:, ints(0, 2)], I[:, :, ints(3, 0)],
        I[E, ints(3, 0)], I[ints(1, 0), E], I[PAIR], I[:, PAIR], I[E, PAIR], I[ints(0, 1), ints(2, 0)],
        I[:, ints(0, 2), ints(3, 1)], I[ints(0, 1), :, ints(3, 1)], I[ints(0, 1), ints(2, 0), ints(3, 1)],
        I[ints(0, 1), 1, ints(3, 1)], I[0, ints(0, 2), ints(3, 1)], I[0, :, ints(3, 1)], I[0, ints(0, 2)],
        I[ints(0, 1), 1], I[ints(0, 1), 1:], I[ints(0, 1), 1:, 2], I[ints(0, 1), 1:, ints(2, 3)], I[1:, ints(0, 2), 2],
        I[1:, ints(0, 2), ::2], I[1:, ints(0, 2), ::-1], I[:, 1, ints(0, 1)], I[ints([0], [1]), ints(0, 2)],
        I[ints([0], [1]), :, ints(0, 2)], I[ints([0], [1]), ints(0, 2), 1:3], I[PAIR, PAIR, PAIR], I[PAIR, :, ints(0, 1)],
        I[None, ints(0, 1)], I[ints(0, 1), None, :], I[:, None, ints(0, 1)], I[ints(0, 1), None, ints(0, 1)],
        I[ints(0, 1), E, None, 2], I[E, None, ints(0, 1)], I[:, ints(0, 1), None, 1], I[mx.array(1), E, mx.array(0)],
        I[:, mx.array(1)], I[[1], [2], [3]], I[[0, 1], :, [1, 2]], I[0:1, [0, 1], [1, 2]], I[::-1, ints(2, 2, 2, 0)],
        I[mask([T, F])], I[0, 0, 0, 0],
    ],
    (2, 2, 3, 2): [
        I[1, 0, 2, 1], I[E, 1], I[1, E, 1], I[:, 1, :, 0], I[0, :, 1], I[:, :, ::-1], I[None, 1, E, None, 0],
        I[ints(0, 1), :, ints(0, 2)], I[ints(0, 1), :, ints(0, 2), :], I[:, ints(0, 1), ints(0, 2)],
        I[:, ints(0, 1), :, ints(0, 1)], I[ints(0, 1), ints(0, 1), :, 1], I[ints(0, 1), 0, :, ints(1, 0)],
        I[0, ints(0, 1), :, ints(1, 0)], I[0, ints(0, 1), E, 1:], I[E, ints(0, 2), ints(1, 0)],
        I[ints(0, 1), None, ints(1, 0)], I[None, ints(0, 1), E, ints(1, 0)], I[PAIR, :, ints([0], [2])],
        I[PAIR, :, :, PAIR], I[1:, PAIR, ::2, 0], I[ints(0), ints([0], [1]), :, ints(0, 1)], I[E, PAIR, None],
        I[::-1, ints(0, 1), ::-1, ints(0, 1)], I[mx.array(1), :, ints(0, 1)], I[:, mx.array(0), ints(0, 1), 1:],
    ],
}

# Per shape: an index and the values to assign. A value is a number, or a shape to fill with -1, -2, ...
WRITES = {
    (6,): [
        (I[0], 9), (I[-1], 9), (I[:], 9), (I[E], 9), (I[1:4], 9), (I[1:4], [3]), (I[1:4], [1]), (I[::2], [3]),
        (I[::-1], [6]), (I[4:1:-1], [3]), (I[-1:-4:-1], [3]), (I[5::-2], [3]), (I[3:3], 9), (I[None, 1:3], [2]),
        (I[None, 1:3], [1, 2]), (I[ints(0, 2)], 9), (I[ints(0, 2)], [2]), (I[[3, 1]], [2]), (I[ints(-1, -2)], [2]),
        (I[PAIR], [2, 2]), (I[PAIR], [2]), (I[ints(4)], [1]), (I[mx.array(3)], 9), (I[mx.array(-1)], 9), (I[2], [1]),
        (I[mask([T, F, T, F, T, F])], 9), (I[mask([T, F, T, F, T, F])], [3]), (I[mask([F] * 6)], 9),
        (I[1:4], [2]), (I[ints(0, 2)], [3]), (I[0, 0], 9), (I[E, 1], 9),
    ],
    (4, 5): [
        (I[1], 9), (I[-1], [5]), (I[1, 2], 9), (I[:, 2], [4]), (I[:, 2], 9), (I[:, -1], [1]), (I[1:3], [5]),
        (I[1:3], [2, 5]), (I[1:3], [2, 1]), (I[1:3, 1:4], [3]), (I[1:3, 1:4], [2, 3]), (I[::2, ::2], [2, 3]),
        (I[::-1], [4, 5]), (I[:, ::-1], [5]), (I[3:0:-2, 4:1:-1], [2, 3]), (I[E, 0], [4]), (I[0, E], [5]),
        (I[E], [4, 5]), (I[E], [5]), (I[None, 1], [5]), (I[None, 1:3, 2], [2]), (I[:, None, 1], [4, 1]),
        (I[:, 1:3, None], [2, 1]), (I[:, :], [1, 1]), (I[ints(0, 2)], 9), (I[ints(0, 2)], [5]), (I[ints(0, 2)], [2, 5]),
        (I[ints(0, 2)], [2, 1]), (I[[1, 3]], [2, 5]), (I[PAIR], [5]), (I[:, ints(0, 4)], 9), (I[:, ints(0, 4)], [2]),
        (I[:, ints(0, 4)], [4, 2]), (I[:, ints(0, 4)], [4, 1]), (I[:, PAIR], [2, 2]), (I[ints(0, 1), ints(2, 3)], 9),
        (I[ints(0, 1), ints(2, 3)], [2]), (I[ints(0, 1), 2], [2]), (I[2, ints(0, 1)], [2]),
        (I[ints([0], [2]), ints(1, 3)], [2, 2]), (I[ints([0], [2]), ints(1, 3)], [2]),
        (I[ints(0, 3), 1:3], [2, 2]), (I[ints(0, 3), 1:3], [2]), (I[1:3, ints(0, 3)], [2, 2]),
        (I[1:3, ints(0, 3)], 9), (I[ints(0, 3), ::-1], [5]), (I[::2, ints(4, 0)], [2, 2]), (I[E, ints(1, 2)], [4, 2]),
        (I[ints(1, 2), E], [2, 5]), (I[mx.array(1), mx.array(2)], 9), (I[mx.array(1)], [5]), (I[:, mx.array(-2)], [4]),
        (I[[0, 1], [2, 3]], [2]), (I[mask([T, F, T, T])], 9), (I[mask([T, F, T, T])], [3, 5]),
        (I[mask([[T, F, T, F, T]] * 2 + [[F, T, F, T, F]] * 2)], 9), (I[mask([[T, F, T, F, T]] * 4)], [12]),
        (I[ints(0, 3), None], [2, 1, 5]), (I[0, 0, 0], 9), (I[1:3], [4]), (I[:, 1], [3]), (I[mask([T, F])], 9),
    ],
    (2, 3, 4): [
        (I[0], [3, 4]), (I[1, 2], [4]), (I[1, 2, 3], 9), (I[:, 1], [2, 4]), (I[:, :, 2], [2, 3]), (I[:, 1], [4]),
        (I[1, :, 2], [3]), (I[0, 1:, ::2], [2, 2]), (I[E, 1], [2, 3]), (I[E, 1], [3]), (I[0, E, 1], [3]),
        (I[E, ::-1], [4]), (I[::-1, ::-1, ::-1], [2, 3, 4]), (I[:, 2:0:-1, 3:0:-2], [2, 2, 2]), (I[E, None], [2, 3, 4, 1]),
        (I[None, 0], [3, 4]), (I[:, None, 1], [2, 1, 4]), (I[ints(0, 1)], [2, 3, 4]), (I[ints(0, 1)], [4]),
        (I[:, ints(0, 2)], [2, 2, 4]), (I[:, ints(0, 2)], [2, 1, 1]), (I[:, :, ints(3, 0)], [2, 3, 2]),
        (I[E, ints(3, 0)], [2]), (I[:, PAIR], [2, 2, 4]), (I[ints(0, 1), ints(2, 0)], [2, 4]),
        (I[ints(0, 1), ints(2, 0)], [4]), (I[:, ints(0, 2), ints(3, 1)], [2, 2]), (I[ints(0, 1), :, ints(3, 1)], [2, 3]),
        (I[ints(0, 1), :, ints(3, 1)], [3]), (I[ints(0, 1), ints(2, 0), ints(3, 1)], [2]),
        (I[ints(0, 1), 1, ints(3, 1)], [2]), (I[0, ints(0, 2), ints(3, 1)], [2]),
        (I[0, ints(0, 2)], [2, 4]), (I[ints(0, 1), 1], [2, 4]), (I[ints(0, 1), 1:], [2, 2, 4]),
        (I[ints(0, 1), 1:, 2], [2, 2]), (I[ints(0, 1), 1:, ints(2, 3)], [2, 2]), (I[1:, ints(0, 2), ::2], [1, 2, 2]),
        (I[1:, ints(0, 2), ::-1], [4]), (I[ints([0], [1]), ints(0, 2)], [2, 2, 4]),
        (I[ints([0], [1]), :, ints(0, 2)], [2, 2, 3]), (I[ints([0], [1]), ints(0, 2), 1:3], [2, 2, 2]),
        (I[PAIR, PAIR, PAIR], [2, 2]), (I[None, ints(0, 1)], [1, 2, 3, 4]), (I[ints(0, 1), None, 1], [2, 1, 4]),
        (I[:, mx.array(1)], [2, 4]), (I[[1], [2], [3]], [1]), (I[[0, 1], :, [1, 2]], [2, 3]), (I[mask([T, F])], 9),
        (I[mask([T, F])], [1, 3, 4]), (I[mask([[T, F, T], [F, F, T]])], 9), (I[mask([[T, F, T], [F, F, T]])], [3, 4]),
        (I[0, mask([T, F, T])], 9), (I[:, mask([T, F, T])], 9), (I[0], [2, 4]), (I[ints(0, 1)], [3, 2, 4]),
    ],
}

# Index, value, and the shape they are tried on; each goes through every accumulating operation.
ACCUMULATIONS = [
    ((6,), I[1:4], 2), ((6,), I[ints(0, 2, 2, 2)], 2), ((6,), I[ints(0, 2, 2)], [3]), ((6,), I[::-1], [6]),
    ((6,), I[-1], 2), ((6,), I[E], [6]), ((4, 5), I[:, ints(1, 1, 3)], [3]), ((4, 5), I[ints(1, 1), ints(2, 2)], 2),
    ((4, 5), I[1:3, ::2], [2, 3]), ((4, 5), I[ints(0, 0, 3)], [5]), ((4, 5), I[E, :3], 2),
    ((2, 3, 4), I[0, ints(1, 1), 1:], [3]), ((2, 3, 4), I[ints(0, 1, 1), :, ints(0, 2, 2)], [3, 3]),
]
OPERATIONS = ["add", "subtract", "multiply", "divide", "maximum", "minimum"]


def base(shape):
    n = 1
    for d in shape:
        n *= d
    return mx.arange(1, n + 1, dtype=mx.float32).reshape(shape)


def values(spec):
    return spec if isinstance(spec, int) else -base(spec)


def item(x):
    match x:
        case slice():
            return {"slice": [x.start, x.stop, x.step]}
        case mx.array() if x.dtype == mx.bool_:
            return {"mask": x.tolist()}
        case mx.array():
            return x.tolist() if x.ndim else {"scalar": x.item()}
        case _ if x is E:
            return "..."
    return x


def attempt(shape, index, make, **row):
    row = {"shape": shape, "index": [item(x) for x in index], **row}
    key = index if len(index) > 1 else index[0]
    try:
        out = make(base(shape), key)
        mx.eval(out)
    except (ValueError, IndexError, TypeError, RuntimeError, SystemError) as error:
        return {**row, "error": type(error).__name__}
    return {**row, "result": list(out.shape), "values": encode.numbers(out.flatten().tolist())}


def assigned(spec):
    def make(x, key):
        x[key] = values(spec)
        return x

    return make


def accumulated(operation, spec):
    return lambda x, key: getattr(x.at[key], operation)(values(spec))


def drawn(rng, shape):
    """A random index for the shape; its integer arrays broadcast together to (2, 2)."""

    def bound(n):
        return rng.choice([None, *range(-n, n + 1)])

    def one(n):
        match rng.randrange(6):
            case 0:
                return rng.randrange(-n, n)
            case 1 | 2:
                return slice(bound(n), bound(n), rng.choice([None, 1, 2, -1, -2]))
            case 3:
                return slice(None)
        size = rng.choice([(2,), (2, 1), (2, 2), (1,)])
        return mx.array([rng.randrange(-n, n) for _ in range(math.prod(size))]).reshape(size)

    items = [one(n) for n in shape[: rng.randint(1, len(shape))]]
    if rng.random() < 0.3:
        items.insert(rng.randint(0, len(items)), None)
    if len([i for i in items if i is not None]) < len(shape) and rng.random() < 0.4:
        items.append(E)
    return tuple(items)


def fuzz(count, shape=(3, 4, 5)):
    """Random reads, and writes of values shaped like what the read gives, or broadcast to it."""
    rng = random.Random(42)
    reads, writes = [], []
    for _ in range(count):
        index = drawn(rng, shape)
        row = attempt(shape, index, lambda x, key: x[key])
        reads.append(row)
        target = row.get("result", [])
        if torn(index):
            continue
        spec = rng.choice([9, target, [1 if rng.random() < 0.4 else n for n in target], target[1:]])
        if 0 not in target and not repeats(index):
            writes.append(attempt(shape, index, assigned(spec), value=spec))
    return reads, writes


def torn(index):
    """Whether something lies between a number and an array: Python's read and write then disagree about the shape."""
    arrays = [i for i, x in enumerate(index) if isinstance(x, (int, mx.array))]
    mixed = any(isinstance(x, int) for x in index) and any(isinstance(x, mx.array) for x in index)
    return mixed and arrays[-1] - arrays[0] >= len(arrays)


def repeats(index):
    """Whether a write may meet one place twice: which value stays is then nobody's promise."""
    return any(isinstance(x, mx.array) and len(set(x.flatten().tolist())) < x.size for x in index)


if __name__ == "__main__":
    more_reads, more_writes = fuzz(60)
    reads = [attempt(s, i, lambda x, key: x[key]) for s, rows in READS.items() for i in rows] + more_reads
    writes = [attempt(s, i, assigned(v), value=v) for s, rows in WRITES.items() for i, v in rows] + more_writes
    accumulations = [
        attempt(s, i, accumulated(op, v), value=v, operation=op) for s, i, v in ACCUMULATIONS for op in OPERATIONS
    ]
    encode.write_lines("indexing-get.json", reads)
    encode.write_lines("indexing-put.json", writes)
    encode.write_lines("indexing-at.json", accumulations)
    for rows in (reads, writes, accumulations):
        print("  refused:", *(f"{r['shape']}{r['index']}" + str(r.get("value", "")) for r in rows if "error" in r))
