"""How results are written down: compact JSON, one fixture a file, floats without loss."""

import base64
import json
import math
from pathlib import Path

import mlx.core as mx
import numpy as np

FIXTURES = Path(__file__).parent.parent / "fixtures"


def float32(x):
    """An array as base64 of little-endian float32."""
    return base64.b64encode(np.array(x.astype(mx.float32)).tobytes()).decode()


def number(x):
    """A float as its shortest float32 decimal; what JSON has no word for becomes a string, complex a pair."""
    if isinstance(x, complex):
        return [number(x.real), number(x.imag)]
    if isinstance(x, float):
        if x.is_integer() and abs(x) < 2**53 and (x or math.copysign(1, x) > 0):
            return int(x)
        if math.isnan(x) or math.isinf(x):
            return str(x)
        return float(str(np.float32(x)))
    return x


def numbers(x):
    return [numbers(v) for v in x] if isinstance(x, list) else number(x)


def tensor(x):
    """{dtype, shape, values}; the values are flat, in row-major order."""
    flat = x.reshape(-1)
    wide = flat.astype(mx.float32) if x.dtype in (mx.bfloat16, mx.float16) else flat
    return {"dtype": str(x.dtype).removeprefix("mlx.core."), "shape": list(x.shape), "values": numbers(wide.tolist())}


def write(name, data):
    path = FIXTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, separators=(",", ":"), ensure_ascii=False) + "\n")
    print(f"{path.relative_to(FIXTURES)}: {path.stat().st_size:,} bytes")


def write_lines(name, rows):
    """A JSON array with one row a line, so that a change shows as the rows that changed."""
    path = FIXTURES / name
    body = ",\n".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{body}\n]\n")
    print(f"{path.relative_to(FIXTURES)}: {len(rows)} rows, {path.stat().st_size:,} bytes")
