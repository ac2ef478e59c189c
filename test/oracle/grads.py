"""Gradient fixtures: value and gradients of composite functions; test/parity/gradients.ts has the same ones."""

import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
import mlx.nn as nn

import encode
from weights import uniform


def formula(key, *shape):
    size = 1
    for n in shape:
        size *= n
    return mx.array(uniform(key, size)).reshape(shape)


a, b, c = formula("a", 2, 3), formula("b", 3, 4), formula("c", 4)
x, w = formula("x", 2, 5, 8), formula("w", 8) + 1.5
q, k = formula("q", 1, 4, 3, 8), formula("k", 1, 2, 5, 8)
targets = mx.array([1, 0])

FUNCTIONS = {
    "linear": (lambda a, b, c: mx.addmm(c, a, b).square().sum(), [a, b, c]),
    "silu": (lambda a: (a * mx.sigmoid(a)).mean(), [a]),
    "softmax": (lambda a: (mx.softmax(a, axis=-1) * a).sum(), [a]),
    "logsumexp": (lambda b: mx.logsumexp(b, axis=0).prod(), [b]),
    "broadcast": (lambda a, c: (a[:, :, None] * c / (1 + c.square())).sum(), [a, c]),
    "rmsNorm": (lambda x, w: (mx.fast.rms_norm(x, w, 1e-5) ** 3).sum(), [x, w]),
    "layerNorm": (lambda x, w: (mx.fast.layer_norm(x, w, w, 1e-5) ** 3).sum(), [x, w]),
    "rope": (
        lambda q: mx.fast.rope(q, 8, traditional=False, base=100.0, scale=1.0, offset=2).cumsum(axis=-1).square().sum(),
        [q],
    ),
    "attention": (
        lambda q, k: mx.fast.scaled_dot_product_attention(q, k, k, scale=0.35, mask="causal").square().sum(), [q, k]
    ),
    "crossEntropy": (lambda a: nn.losses.cross_entropy(a, targets, reduction="mean"), [a]),
    "gather": (lambda b: (b[mx.array([0, 2, 2])] * mx.array([1.0, 2.0, 3.0])[:, None]).sum(), [b]),
    "scatter": (lambda b, c: b.at[mx.array([1, 1])].add(c).square().sum(), [b, c]),
    "assign": (lambda b, c: assigned(b, c).square().sum(), [b, c]),
    "conv": (lambda x, b: mx.conv1d(x[..., :3], b.T[:, None, :] * mx.ones((4, 2, 1)), padding=1).square().sum(), [x, b]),
    "checkpointed": (lambda a: mx.checkpoint(lambda a: mx.tanh(a) * mx.exp(a))(a).sum(), [a]),
    "stopped": (lambda a: (mx.stop_gradient(a) * a).sum(), [a]),
    "where": (lambda a: mx.where(a > 0, a.square(), mx.log(2 + a)).sum(), [a]),
    "sort": (lambda a: (mx.sort(a, axis=-1) * mx.arange(3)).sum(), [a]),
}


def assigned(b, c):
    b = mx.array(b)
    b[1, ::-1] = c
    return b


def fixture(name):
    function, inputs = FUNCTIONS[name]
    value, grads = mx.value_and_grad(function, argnums=list(range(len(inputs))))(*inputs)
    grads = [grads] if len(inputs) == 1 else grads
    return {"name": name, "value": encode.number(value.item()), "gradients": [encode.tensor(g) for g in grads]}


if __name__ == "__main__":
    encode.write_lines("gradients.json", [fixture(name) for name in FUNCTIONS])
