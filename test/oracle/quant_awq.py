"""AWQ fixtures: what mlx-lm's two searches find, and awq_quantize on tiny models with weights by formula.

Two things differ from the reference as it stands. Gemma's embeddings are scaled, as its forward pass does and awq.py
forgets. Mixtral, which awq.py does not know, gets groups of its own.
"""

import contextlib
import io
import math
import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.quant import awq

import encode
from architectures import CONFIGS, SALTS
from models import build
from weights import uniform

ROWS, LENGTH = 6, 16
OPTIONS = {"bits": 3, "group_size": 32, "embed_bits": 4, "embed_group_size": 32, "n_grid": 8}
NAMES = ["llama", "llama_bias", "qwen3", "gemma3_text_untied", "mixtral"]

mixtral_awq = awq.AWQConfig(
    embed="embed_tokens", lm_head="lm_head", no_clip=["q_proj", "k_proj"],
    scale_configs=[
        awq.llama_awq.scale_configs[0],
        awq.ScaleConfig(
            prev="block_sparse_moe.switch_mlp.up_proj", layers=["block_sparse_moe.switch_mlp.down_proj"],
            kwargs=["indices"],
        ),
        awq.ScaleConfig(
            block="block_sparse_moe", prev="post_attention_layernorm",
            layers=["switch_mlp.gate_proj", "switch_mlp.up_proj", "gate"],
        ),
    ],
)


def outliers(model):
    """Some channels of what the norms give are much larger than others, as in trained models."""
    for block in model.layers:
        for name in ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm"):
            if name in block:
                norm = block[name]
                size = norm.weight.size
                norm.weight = norm.weight * mx.where(mx.arange(size) % 13 == 5, 6.0, 1.0)


def scale_embeddings(model, factor):
    class Scaled(nn.QuantizedEmbedding):
        def __call__(self, x):
            y = super().__call__(x)
            return y * mx.array(factor, mx.bfloat16).astype(y.dtype)

    embedding = model.model.embed_tokens
    embedding.to_quantized = lambda **how: Scaled.from_embedding(embedding, **how)


def fixture(name):
    model, shapes = build(name, SALTS.get(name, 0))
    outliers(model)
    vocabulary = CONFIGS[name]["vocab_size"]
    ids = ((uniform(f"awq {name}", ROWS * LENGTH) + 1) / 2 * vocabulary).astype(int).reshape(ROWS, LENGTH)
    if name.startswith("gemma"):
        scale_embeddings(model, CONFIGS[name]["hidden_size"] ** 0.5)

    scales, search = [], awq.search_best_scale
    awq.search_best_scale = lambda **kwargs: scales.append(search(**kwargs)) or scales[-1]
    lines, write = [], awq.tqdm.write
    awq.tqdm.write = lines.append
    config = awq.AWQ_MODEL_CONFIGS.get(name.split("_")[0], mixtral_awq)
    if name.startswith("gemma"):
        config = awq.gemma3_text_awq
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            awq.awq_quantize(model, mx.array(ids), config, **OPTIONS)
    finally:
        awq.search_best_scale, awq.tqdm.write = search, write
    reductions = [float(line.split("(")[-1].split(",")[0].rstrip(")").split(": ")[-1]) for line in lines if "reduction" in line]
    weights = dict(tree_flatten(model.parameters()))
    print(name, "reductions", reductions, "factors", [round((s.max() / s.min()).item(), 2) for s in scales])
    means = {path: x.astype(mx.float32).square().mean().item() for path, x in sorted(weights.items()) if x.dtype != mx.uint32}
    return {
        "name": name, "tokens": ids.tolist(), "reductions": reductions,
        "scales": [encode.numbers(s.tolist()) for s in scales],
        "mean_squares": {path: encode.number(x) for path, x in means.items()},
        "block": {path: encode.float32(x) for path, x in sorted(weights.items()) if "layers.1." in path and path in means},
    }


def searches(bits, group_size, experts=None):
    """Both searches of one layer, where all inputs are a formula: nothing before them rounds."""
    def quantize(w):
        return mx.dequantize(*mx.quantize(w, bits=bits, group_size=group_size), bits=bits, group_size=group_size)

    def formula(key, *shape):
        return mx.array(uniform(key, math.prod(shape))).reshape(shape)

    shape = (experts, 24, 128) if experts else (24, 128)
    layer = SwitchLinear(128, 24, experts, bias=False) if experts else nn.Linear(128, 24, bias=False)
    layer.weight = formula("awq weight", *shape)
    louder = mx.where(mx.arange(128) % 13 == 5, 6.0, 1.0)
    kwargs = {}
    if experts:
        layer.input_feat = formula("awq input", 640, 1, 128) * louder
        kwargs["indices"] = mx.arange(640) % experts
    else:
        layer.input_feat = formula("awq input", 20, 32, 128) * louder
    scales = awq.search_best_scale([layer], quantize, None, kwargs, 10)
    clipped = awq.search_best_clip(layer, quantize, group_size, 10)
    groups = lambda w: w.reshape(-1, group_size).abs().max(axis=-1)
    limits = groups(clipped) / groups(layer.weight)
    return {
        "bits": bits, "group_size": group_size, "experts": experts, "scales": encode.numbers(scales.tolist()),
        "limits": [round(v, 3) for v in limits.tolist()],
    }


SEARCHES = [(3, 32), (4, 64), (2, 32), (4, 32, 3)]

if __name__ == "__main__":
    encode.write("quant-awq.json", {
        "options": OPTIONS, "searches": [searches(*case) for case in SEARCHES], "models": [fixture(name) for name in NAMES],
    })
