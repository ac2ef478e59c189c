"""Random fixtures: what mx.random gives from seed 42, call after call, and what explicit keys give."""

import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx

import encode

DTYPES = {name: getattr(mx, name) for name in ("float32", "bfloat16", "float16", "int32", "uint8", "uint32", "int64")}

# Function, positional arguments, keyword arguments; {"arange": n} is that float32 tensor, {"key": n} a key.
CALLS = [
    ("uniform", [], {"shape": [3]}),
    ("normal", [], {"shape": [3], "dtype": "bfloat16"}),
    ("normal", [], {"shape": [2, 3]}),
    ("normal", [], {"shape": [4], "loc": 2.0, "scale": 0.5}),
    ("normal", [], {"shape": [3], "dtype": "float16"}),
    ("uniform", [], {"low": -2.0, "high": 3.0, "shape": [2, 2]}),
    ("uniform", [], {"shape": [5], "dtype": "bfloat16"}),
    ("uniform", [], {"low": {"arange": 4}, "high": 10.0, "shape": [2, 4]}),
    ("uniform", [], {}),
    ("randint", [0, 100], {"shape": [6]}),
    ("randint", [-5, 5], {"shape": [2, 3], "dtype": "int64"}),
    ("randint", [0, 255], {"shape": [4], "dtype": "uint8"}),
    ("bernoulli", [0.5], {"shape": [8]}),
    ("bernoulli", [0.25], {"shape": [8]}),
    ("bernoulli", [{"scaled": [4, 0.25]}], {}),
    ("categorical", [{"arange": 10}], {}),
    ("categorical", [{"arange": 10}], {"num_samples": 6}),
    ("categorical", [{"grid": [3, 5]}], {"axis": -1}),
    ("categorical", [{"grid": [3, 5]}], {"axis": 0, "num_samples": 2}),
    ("categorical", [{"grid": [2, 5]}], {"shape": [3, 2]}),
    ("gumbel", [], {"shape": [4]}),
    ("gumbel", [], {"shape": [3], "dtype": "bfloat16"}),
    ("permutation", [8], {}),
    ("permutation", [{"grid": [4, 2]}], {}),
    ("permutation", [{"grid": [2, 5]}], {"axis": 1}),
    ("truncated_normal", [-1.0, 1.0], {"shape": [4]}),
    ("truncated_normal", [{"arange": 2}, 5.0], {"shape": [3, 2]}),
    ("laplace", [], {"shape": [4]}),
    ("laplace", [], {"shape": [3], "loc": -1.0, "scale": 2.0}),
    ("multivariate_normal", [{"arange": 2}, {"eye": 2}], {"shape": [3]}),
    ("uniform", [], {"shape": [2], "key": {"key": 7}}),
    ("normal", [], {"shape": [3], "key": {"key": 7}}),
    ("categorical", [{"arange": 10}], {"num_samples": 5, "key": {"key": 7}}),
    ("randint", [0, 10], {"shape": [4], "key": {"key": 7}}),
    ("bernoulli", [0.5], {"shape": [4], "key": {"key": 7}}),
    ("gumbel", [], {"shape": [2], "key": {"key": 7}}),
    ("permutation", [5], {"key": {"key": 7}}),
    ("truncated_normal", [-1.0, 1.0], {"shape": [2], "key": {"key": 7}}),
    ("laplace", [], {"shape": [2], "key": {"key": 7}}),
    ("key", [0], {}),
    ("key", [42], {}),
    ("key", [2**40 + 3], {}),
    ("split", [{"key": 42}], {}),
    ("split", [{"key": 42}], {"num": 4}),
    ("uniform", [], {"shape": [2]}),
]


def decode(value):
    match value:
        case {"arange": n}:
            return mx.arange(n, dtype=mx.float32)
        case {"scaled": [n, by]}:
            return mx.arange(n, dtype=mx.float32) * by
        case {"grid": [rows, columns]}:
            return mx.arange(rows * columns, dtype=mx.float32).reshape(rows, columns)
        case {"eye": n}:
            return mx.eye(n)
        case {"key": n}:
            return mx.random.key(n)
        case str():
            return DTYPES[value]
    return value


def run(call):
    fn, args, kwargs = call
    kwargs = {k: decode(v) for k, v in kwargs.items()}
    if fn == "multivariate_normal":
        kwargs["stream"] = mx.cpu
    out = getattr(mx.random, fn)(*map(decode, args), **kwargs)
    state = mx.random.state[0].tolist()
    return {"fn": fn, "args": args, "kwargs": call[2], "expected": encode.tensor(mx.array(out)), "state": state}


if __name__ == "__main__":
    mx.random.seed(42)
    encode.write_lines("random.json", [run(call) for call in CALLS])
