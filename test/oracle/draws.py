"""Random draws of model constructors: a seed set before loading must give the tokens that Python samples."""

import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes

import encode
from architectures import CONFIGS


def first(x):
    return [encode.number(v) for v in x.flatten()[:2].tolist()]


def row(name):
    Model, Args = _get_classes(CONFIGS[name])
    mx.random.seed(42)
    model = Model(Args.from_dict(CONFIGS[name]))
    after = mx.random.state[0].tolist()
    weights = {k: first(v) for k, v in tree_flatten(model.parameters()) if "norm" not in k and "layers.1" not in k}
    nn.quantize(model, group_size=32, bits=4)
    return {"name": name, "config": CONFIGS[name], "weights": weights, "key": after,
            "quantizedKey": mx.random.state[0].tolist()}


encode.write_lines("draws.json", [row(name) for name in CONFIGS])
