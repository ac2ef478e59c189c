"""Op fixtures: for every array operation, one call or more and what MLX gives.

Names and keyword arguments are written in camelCase, as the TypeScript façade has them. Input tensors are
{"key", "shape", "low", "high", "dtype"} (the weights' uniform formula, stretched) or {"values", "shape", "dtype"}.
"""

import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import math

import mlx.core as mx
import numpy as np

import encode
from weights import uniform

NAMES = "float32 float16 bfloat16 int8 int32 int64 uint8 uint32 complex64".split()
DTYPES = {"bool": mx.bool_, **{name: getattr(mx, name) for name in NAMES}}
RENAMED = {"constant_values": "value", "fill_value": "fill"}


class Tensor:
    """An input tensor: its description in JSON and the array itself."""

    def __init__(self, shape, low=-1.0, high=1.0, dtype="float32", values=None):
        self.shape, self.low, self.high, self.dtype, self.values, self.key = shape, low, high, dtype, values, None

    def describe(self):
        if self.values is not None:
            return {"values": encode.numbers(self.values), "shape": self.shape, "dtype": self.dtype}
        return {"key": self.key, "shape": self.shape, "low": self.low, "high": self.high, "dtype": self.dtype}

    def array(self):
        if self.values is not None:
            return mx.array(self.values).astype(DTYPES[self.dtype]).reshape(self.shape)
        u = (uniform(self.key, math.prod(self.shape)).astype(np.float64) + 1) / 2
        flat = (self.low + (self.high - self.low) * u).astype(np.float32)
        return mx.array(flat).reshape(self.shape).astype(DTYPES[self.dtype])


def t(*shape, low=-1.0, high=1.0, dtype="float32"):
    return Tensor(list(shape), low, high, dtype)


def positive(*shape, dtype="float32"):
    return t(*shape, low=0.25, high=2.0, dtype=dtype)


def v(values, dtype="int32", shape=None):
    return Tensor(shape or [len(values)], values=values, dtype=dtype)


def camel(name):
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def described(value):
    if isinstance(value, Tensor):
        return value.describe()
    if isinstance(value, (list, tuple)):
        return [described(x) for x in value]
    return value


def evaluated(value):
    if isinstance(value, Tensor):
        return value.array()
    if isinstance(value, list):
        return [evaluated(x) for x in value]
    if isinstance(value, str) and value in DTYPES:
        return DTYPES[value]
    return value


def name_keys(value, keys):
    if isinstance(value, Tensor):
        value.key = next(keys)
    elif isinstance(value, list):
        for x in value:
            name_keys(x, keys)


ROWS = []


def case(op, *args, tolerance=None, magnitude=False, python=None, **kwargs):
    """One call. `magnitude`: compare absolute values only (signs of eigenvectors are LAPACK's choice); `python`: what
    to call where Python's name or way of passing arguments differs."""
    name_keys([*args, *kwargs.values()], iter("abcdefgh"))
    function = python
    if function is None:
        function = mx
        for part in op.split("."):
            function = getattr(function, part)
    arrays = [evaluated(a) for a in args]
    out = function(*arrays, **{k: evaluated(x) for k, x in kwargs.items()})
    results = [encode.tensor(x) for x in (out if isinstance(out, (list, tuple)) else [out])]
    row = {"op": ".".join(camel(p) for p in op.split(".")), "args": [described(a) for a in args]}
    if kwargs:
        row["kwargs"] = {RENAMED.get(k, camel(k)): described(x) for k, x in kwargs.items()}
    if tolerance:
        row["tolerance"] = tolerance
    if magnitude:
        row["magnitude"] = True
    ROWS.append({**row, "expected": results if isinstance(out, (list, tuple)) else results[0]})


def elementwise():
    for op in "abs negative sign floor ceil square exp expm1 sin cos tan arctan sinh cosh tanh arcsinh".split():
        case(op, t(6, low=-2.5, high=2.5))
    for op in "sigmoid erf degrees radians trunc isnan isinf isfinite isposinf isneginf stop_gradient".split():
        case(op, t(6, low=-2.5, high=2.5))
    for op in "arcsin arccos arctanh erfinv".split():
        case(op, t(6, low=-0.9, high=0.9))
    for op in "log log2 log10 log1p sqrt rsqrt reciprocal".split():
        case(op, positive(6))
    case("arccosh", t(4, low=1.25, high=3.0))
    for op in "isnan isinf isposinf isneginf isfinite".split():
        case(op, v([1.0, math.inf, -math.inf, math.nan], "float32"))
    for op in "exp tanh rsqrt".split():
        case(op, positive(6, dtype="bfloat16"), tolerance=8e-3)
        case(op, positive(6, dtype="float16"), tolerance=1e-3)
    for op in "conjugate real imag abs".split():
        case(op, v([1.0, -2.0, 0.5], "complex64"))
    case("logical_not", v([0, 1, 2]))
    case("bitwise_invert", v([0, 1, -7]))
    case("round", t(6, low=-50, high=50))
    case("round", t(6, low=-50, high=50), 1)
    for op in "add subtract multiply divide maximum minimum arctan2 logaddexp".split():
        case(op, t(2, 3), t(3))
    for op in "power floor_divide remainder divide".split():
        case(op, positive(2, 3), positive(2, 1))
    for op in "floor_divide remainder power add subtract multiply divide maximum".split():
        case(op, v([7, -7, 9, 4]), v([2, 2, 4, 3]))
    for op in "equal not_equal greater greater_equal less less_equal".split():
        case(op, v([1, 2, 3, 2]), v([2, 2, 2, 2]))
    for op in "logical_and logical_or logical_xor".split():
        case(op, v([0, 1, 1], "bool"), v([1, 1, 0], "bool"))
    for op in "bitwise_and bitwise_or bitwise_xor left_shift right_shift".split():
        case(op, v([12, 7, 255], "uint32"), v([3, 2, 4], "uint32"))
    for op in "add multiply subtract".split():
        case(op, v([1, 2], "int32"), t(2, dtype="bfloat16"), tolerance=8e-3)
    case("add", t(3), 2)
    case("multiply", t(3, dtype="bfloat16"), 0.1, tolerance=8e-3)
    case("subtract", 1, t(3))
    case("divide", v([3, 4]), 2)
    case("multiply", v([3, 4]), 1.5)
    case("add", v([1, 0], "bool"), 1)
    case("maximum", v([3, -4]), 0)
    case("power", positive(3), 3)
    case("divmod", v([7, -7, 9]), v([2, 2, 4]))
    case("clip", t(6), -0.5, 0.5)
    case("clip", t(6), t(6, low=-1, high=0), None)
    case("where", v([1, 0, 1], "bool"), t(3), t(3))
    case("where", v([[1], [0]], "bool", [2, 1]), t(2, 3), -1.0)
    case("nan_to_num", v([1.0, math.nan, math.inf, -math.inf], "float32"), nan=0.5, posinf=9.0, neginf=-9.0)
    case("isclose", v([1.0, 2.0], "float32"), v([1.000001, 2.1], "float32"))
    case("allclose", v([1.0, 2.0], "float32"), v([1.0, 2.1], "float32"), atol=0.2)
    case("array_equal", v([1, 2]), v([1, 2]))
    case("astype", t(6, low=-9, high=9), "int32")
    case("astype", t(6, low=-9, high=9), "bfloat16")
    case("astype", v([0, 3, 300]), "uint8")
    case("view", v([1.0, -2.0], "float32"), "uint32")
    case("view", v([1, 2, 3, 4], "uint8"), "uint32")
    case("to_fp8", t(6, low=-9, high=9))
    case("from_fp8", v([0, 56, 60, 184, 120], "uint8"), "float32")


def creation():
    case("arange", 5)
    case("arange", 2, 11, 3)
    case("arange", 0, 1, 0.25)
    case("arange", 0, 4, 1, dtype="float32")
    case("linspace", 0, 1, 5)
    case("full", [2, 2], 7)
    case("full", [3], 0.1, "bfloat16")
    case("zeros", [2, 2])
    case("ones", [3], "int32")
    case("zeros_like", v([1, 2]))
    case("ones_like", t(2, 2))
    case("full_like", t(2), 3)
    case("eye", 3)
    case("tri", 3)
    case("identity", 2)
    case("tril", t(3, 3))
    case("triu", t(3, 3))
    case("tril", t(3, 3), 1)
    case("diag", t(3))
    case("diag", t(3, 3))
    case("diagonal", t(3, 4), offset=1)
    case("meshgrid", [v([1, 2]), v([3, 4, 5])], python=lambda arrays: mx.meshgrid(*arrays))
    for op in "hanning hamming bartlett blackman".split():
        case(op, 5)


def shaping():
    x = lambda: t(2, 3, 4)
    case("reshape", x(), [4, 6])
    case("reshape", x(), [3, -1])
    case("flatten", x())
    case("flatten", x(), 1, 2)
    case("unflatten", t(2, 6), 1, [2, 3])
    case("squeeze", t(1, 3, 1))
    case("squeeze", t(1, 3, 1), 0)
    case("expand_dims", t(3), 0)
    case("expand_dims", t(3), [0, 2])
    case("transpose", x())
    case("transpose", x(), [1, 0, 2])
    case("matrix_transpose", x())
    case("swapaxes", x(), 0, 2)
    case("moveaxis", x(), 0, -1)
    case("broadcast_to", t(3), [2, 3])
    case("broadcast_arrays", [t(3), t(2, 1)], python=lambda arrays: mx.broadcast_arrays(*arrays))
    for op in "atleast_1d atleast_2d atleast_3d".split():
        case(op, t(2))
    case("contiguous", x())
    case("copy", x(), python=mx.array)
    case("number_of_elements", x(), [0, -1], python=lambda x, axes: mx.array(8))
    case("as_strided", t(6), [2, 2], [1, 2], 1)
    case("concatenate", [t(2, 3), t(1, 3)])
    case("concatenate", [t(2, 1), t(2, 2)], axis=-1)
    case("stack", [t(3), t(3)])
    case("stack", [t(3), t(3)], axis=1)
    case("unstack", t(2, 2))
    case("split", t(4, 2), 2)
    case("split", t(2, 6), [1, 4], axis=1)
    case("repeat", t(2, 2), 2)
    case("repeat", t(2, 2), 2, axis=1)
    case("tile", t(2, 2), [2, 1])
    case("pad", t(2, 2), 1)
    case("pad", t(2, 3), [[0, 1], [2, 0]], constant_values=5.0)
    case("pad", t(2, 3), [[1, 1], [1, 1]], mode="edge")
    case("roll", t(5), 2)
    case("roll", t(2, 4), 1, axis=1, python=lambda x, shift, axis: mx.roll(x, shift, axis))
    case("flip", t(2, 3))
    case("flip", t(2, 3), [1])
    case("take", t(4, 3), v([2, 0]), axis=0)
    case("take", t(4, 3), v([2, 0, 11]))
    case("take_along_axis", t(2, 4), v([0, 3, 1, 1], shape=[2, 2]), axis=1)
    case("put_along_axis", t(2, 4), v([0, 3], shape=[2, 1]), t(2, 1), axis=1)
    case("scatter_add_axis", t(2, 4), v([0, 0, 3, 1], shape=[2, 2]), t(2, 2), axis=1, python=scatter_add_axis)
    case("searchsorted", v([1, 3, 5]), v([0, 3, 4, 9]))
    case("depends", [t(2)], [t(3)])


def scatter_add_axis(x, indices, values, axis):
    return x.at[mx.array([[0], [1]]), indices].add(values)


def reductions():
    x = lambda: t(2, 3, 4)
    for op in "sum mean max min prod logsumexp".split():
        case(op, x())
        case(op, x(), axis=-1)
        case(op, x(), axis=[0, 2], keepdims=True)
    for op in "all any".split():
        case(op, v([1, 0, 1, 1], "bool", [2, 2]), axis=1)
        case(op, v([1, 0, 1, 1], "bool", [2, 2]))
    for op, python in (("variance", mx.var), ("std", mx.std)):
        case(op, x(), axis=1, python=python)
        case(op, x(), axis=[1, 2], keepdims=True, ddof=1, python=python)
    for op in "median count_nonzero minmax".split():
        case(op, x(), axis=1)
    for op in "argmax argmin".split():
        case(op, x())
        case(op, x(), axis=1)
        case(op, x(), axis=-1, keepdims=True)
    case("softmax", x(), axis=-1)
    case("softmax", x(), axis=[0, 2])
    case("softmax", t(2, 4, low=-4, high=4, dtype="bfloat16"), axis=-1, precise=True, tolerance=8e-3)
    for op in "sort argsort".split():
        case(op, x())
        case(op, x(), axis=0)
    case("partition", t(2, 5), 2)
    case("argpartition", t(1, 5), 1, axis=-1)
    case("topk", t(2, 6), 2)
    case("unique", v([3, 1, 3, 2, 1]), 3, return_counts=True)
    for op in "cumsum cumprod cummax cummin logcumsumexp".split():
        case(op, t(2, 4), axis=1)
        case(op, t(2, 4), axis=0, reverse=True, inclusive=False)
    case("cumsum", t(2, 2))
    case("diff", t(2, 4))
    case("trace", t(3, 3))
    case("sum", v([100, 100, 100], "uint8"))
    case("sum", t(64, dtype="bfloat16"), tolerance=2e-2)
    case("mean", v([1, 2, 4]))


def products():
    case("matmul", t(2, 3, 4), t(4, 5))
    case("matmul", t(4), t(4, 2))
    case("matmul", t(3, 32, dtype="bfloat16"), t(32, 2, dtype="bfloat16"), tolerance=3e-2)
    case("matmul", t(3, 8, dtype="float16"), t(8, 2, dtype="float16"), tolerance=4e-3)
    for op in "inner outer".split():
        case(op, t(3), t(3))
    case("kron", t(2, 2), t(1, 2))
    case("vecdot", t(2, 3), t(2, 3))
    case("addmm", t(3), t(2, 4), t(4, 3), alpha=0.5, beta=2.0)
    case("tensordot", t(2, 3, 4), t(4, 3, 2), [[1, 2], [1, 0]])
    case("einsum", "bij,bkj->bik", t(2, 2, 3), t(2, 4, 3))
    case("hadamard_transform", t(2, 8))
    case("hadamard_transform", t(2, 8), scale=1.0)
    case("block_masked_mm", t(32, 32), t(32, 32), block_size=32, mask_out=v([1], "bool", [1, 1]))
    case("segmented_mm", t(2, 6), t(6, 2), v([0, 2, 2, 6], "uint32", [2, 2]))
    case("gather_mm", t(2, 1, 4), t(3, 4, 2), lhs_indices=v([0, 1, 1], "uint32"), rhs_indices=v([2, 0, 2], "uint32"))
    case("conv1d", t(1, 6, 2), t(3, 3, 2), stride=2, padding=1)
    case("conv1d", t(1, 6, 4), t(4, 3, 1), groups=4)
    case("conv2d", t(1, 4, 4, 2), t(2, 3, 3, 2), padding=1)
    case("conv3d", t(1, 3, 3, 3, 1), t(1, 2, 2, 2, 1))
    case("conv_general", t(1, 6, 2), t(2, 3, 2), kernel_dilation=2, padding=[[2], [1]], python=causal_convolution)
    case("conv_transpose1d", t(1, 3, 2), t(2, 3, 2), stride=2)
    case("conv_transpose2d", t(1, 2, 2, 1), t(1, 2, 2, 1))
    case("conv_transpose3d", t(1, 2, 2, 2, 1), t(1, 2, 2, 2, 1))


def causal_convolution(x, w, kernel_dilation, padding):
    return mx.conv_general(x, w, kernel_dilation=kernel_dilation, padding=tuple(padding))


def fast():
    case("fast.rms_norm", t(2, 8), positive(8), 1e-5)
    case("fast.rms_norm", t(2, 8), None, 1e-5)
    case("fast.layer_norm", t(2, 8), positive(8), t(8), 1e-5)
    case("fast.layer_norm", t(2, 8), None, None, 1e-5)
    rope = dict(traditional=False, base=10000.0, scale=1.0)
    case("fast.rope", t(1, 2, 3, 8), 8, **rope, offset=0)
    case("fast.rope", t(1, 2, 3, 8), 8, **{**rope, "traditional": True, "scale": 0.5}, offset=7)
    case("fast.rope", t(2, 1, 2, 8), 4, **rope, offset=v([3, 11]))
    case("fast.rope", t(1, 1, 2, 8), 8, **{**rope, "base": None}, offset=5, freqs=positive(4))
    q, k = lambda: t(1, 4, 3, 8), lambda: t(1, 2, 5, 8)
    attention = "fast.scaled_dot_product_attention"
    case(attention, q(), k(), k(), scale=0.35)
    case(attention, q(), k(), k(), scale=0.35, mask="causal")
    case(attention, q(), k(), k(), scale=0.35, mask=t(3, 5, low=-4, high=0))
    case(attention, q(), k(), k(), scale=0.35, mask=v([1, 0, 1, 1, 0] * 3, "bool", [3, 5]))
    case(attention, q(), k(), k(), scale=0.35, sinks=t(4))
    case(attention, q(), k(), k(), scale=0.35, mask="causal", sinks=t(4))
    case("fast.cross_entropy", t(3, 5, low=-3, high=3), v([0, 4, 2]))
    gate = lambda: t(1, 3, 2, low=0.5, high=1.0)
    case("fast.gated_delta_update", t(1, 3, 2, 8), t(1, 3, 2, 8), t(1, 3, 2, 4), gate(), gate())


def linalg():
    def spd():
        """Symmetric, positive definite, with distinct eigenvalues."""
        return v([4.0, 1.0, 0.5, 1.0, 3.0, 0.25, 0.5, 0.25, 2.0], "float32", [3, 3])

    cpu = lambda name: lambda *a, **k: getattr(mx.linalg, name)(*a, **k, stream=mx.cpu)
    case("linalg.norm", t(2, 3))
    case("linalg.norm", t(2, 3), axis=-1, keepdims=True)
    case("linalg.norm", t(2, 3), ord=1, axis=1)
    case("linalg.norm", t(2, 3), ord="fro")
    for op in "inv cholesky cholesky_inv pinv det slogdet eigvalsh".split():
        case(f"linalg.{op}", spd(), python=cpu(op))
    for op in "qr eigh svd".split():
        case(f"linalg.{op}", spd(), python=cpu(op), magnitude=True)
    case("linalg.svdvals", spd(), python=lambda x: mx.linalg.svd(x, compute_uv=False, stream=mx.cpu))
    case("linalg.eigvals", spd(), python=cpu("eigvals"))
    case("linalg.eig", spd(), python=cpu("eig"), magnitude=True)
    case("linalg.lu", spd(), python=cpu("lu"))
    case("linalg.lu_factor", spd(), python=cpu("lu_factor"))
    case("linalg.cholesky", spd(), upper=True, python=cpu("cholesky"))
    case("linalg.tri_inv", v([2.0, 0.0, 1.0, 4.0], "float32", [2, 2]), python=cpu("tri_inv"))
    case("linalg.solve", spd(), t(3), python=cpu("solve"))
    triangle = v([2.0, 1.0, 0.0, 4.0], "float32", [2, 2])
    case("linalg.solve_triangular", triangle, t(2), upper=True, python=cpu("solve_triangular"))
    case("linalg.cross", t(2, 3), t(2, 3))


def fft():
    case("fft.fft", t(6))
    case("fft.fft", t(2, 4), n=8, axis=-1)
    case("fft.ifft", t(6))
    case("fft.rfft", t(6))
    case("fft.irfft", t(4), n=6)
    for op in "fft2 ifft2 rfft2 irfft2 fftn ifftn rfftn irfftn fftshift ifftshift".split():
        case(f"fft.{op}", t(2, 4))
    case("fft.rfft", t(6), norm="ortho")
    case("fft.fftfreq", 5, 0.5)
    case("fft.rfftfreq", 5, 0.5)
    case("fft.stft", t(16), 8, hop_length=4)
    spectrum = v([1.0, 0.5, -0.25, 2.0, 1.0, 0.25, -1.0, 3.0, 0.5, 0.0], "complex64", [2, 5])
    case("fft.istft", spectrum, n_fft=8, hop_length=4)


if __name__ == "__main__":
    for group in (elementwise, creation, shaping, reductions, products, fast, linalg, fft):
        group()
    encode.write_lines("ops.json", ROWS)
    print(len({row["op"] for row in ROWS}), "operations")
