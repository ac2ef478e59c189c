"""The text models that mlx-vlm has and mlx-lm lacks, as mlx-lm's tools take models.

mlx-vlm's files of models need no more than Pillow: `pip install --no-deps mlx-vlm==0.7.10 pillow`.
"""

import importlib
import importlib.util
import sys
import types

import mlx.core as mx
import mlx.nn as nn

# Where the language model is, and its arguments' class.
BEYOND = {
    "cohere2_moe": "ModelConfig", "hy_v4": "ModelConfig", "k2_horizon": "ModelConfig", "mimo_v2": "TextConfig",
    "step3p7": "TextConfig",
}


def bare_package():
    """mlx_vlm's folders without what its own start imports: servers and readers of pictures and sound."""
    if "mlx_vlm" in sys.modules:
        return
    [folder] = importlib.util.find_spec("mlx_vlm").submodule_search_locations
    for name, path in (("mlx_vlm", folder), ("mlx_vlm.models", f"{folder}/models")):
        package = types.ModuleType(name)
        package.__path__ = [path]
        sys.modules[name] = package


class Tail(nn.Module):
    """Turns the last features of a head, as halves."""

    def __init__(self, rope):
        super().__init__()
        self.rope = rope

    def __call__(self, x, offset=0):
        still, turning = mx.split(x, [x.shape[-1] - self.rope.dims], axis=-1)
        return mx.concatenate([still, self.rope(turning, offset)], axis=-1)


def train_hy_v4(model):
    """Turns features as transformers does: halves, and of the indexer's heads the last ones. mlx-vlm turns neighbours, and
    the first ones."""
    for layer in model.layers:
        layer.self_attn.rope.traditional = False
        if layer.self_attn.indexer is not None:
            layer.self_attn.indexer.rope.traditional = False
            layer.self_attn.indexer.rope = Tail(layer.self_attn.indexer.rope)


def plain_hy_v4(args, weights):
    """Tensors that are not packed in eight bits, which mlx-vlm's own code takes for granted."""
    heads, plain = args.num_attention_heads, args.qk_nope_head_dim
    for i in range(args.num_hidden_layers):
        path = f"model.layers.{i}"
        rows = weights.pop(f"{path}.self_attn.kv_b_proj.weight").reshape(heads, plain + args.v_head_dim, -1)
        weights[f"{path}.self_attn.embed_q.weight"] = mx.contiguous(rows[:, :plain].swapaxes(-1, -2))
        weights[f"{path}.self_attn.unembed_out.weight"] = mx.contiguous(rows[:, plain:])
        for part in ("gate_up_proj", "down_proj"):
            if f"{path}.mlp.experts.{part}" in weights:
                weights[f"{path}.mlp.switch_mlp.{part}.weight"] = weights.pop(f"{path}.mlp.experts.{part}")
    return weights


TRAINED, PREPARED = {"hy_v4": train_hy_v4}, {"hy_v4": plain_hy_v4}


class Text(nn.Module):
    def __init__(self, language_model):
        super().__init__()
        self.language_model = language_model

    def __call__(self, inputs, cache=None):
        return self.language_model(inputs, cache=cache).logits

    @property
    def model_type(self):
        return self.language_model.args.model_type

    @property
    def layers(self):
        return self.language_model.layers

    def make_cache(self):
        return self.language_model.make_cache()

    def sanitize(self, weights):
        own = {name.removeprefix("language_model."): x for name, x in weights.items()}
        own = PREPARED.get(self.model_type, lambda _, tensors: tensors)(self.language_model.args, own)
        return {f"language_model.{name}": x for name, x in self.language_model.sanitize(own).items()}


class Maker:
    """A model's arguments and the model, in the two calls that mlx-lm makes of them."""

    def __init__(self, model_type):
        bare_package()
        self.config = importlib.import_module(f"mlx_vlm.models.{model_type}.config")
        self.language = importlib.import_module(f"mlx_vlm.models.{model_type}.language")
        self.kind = BEYOND[model_type]

    def from_dict(self, config):
        return getattr(self.config, self.kind).from_dict(config.get("text_config", config))

    def __call__(self, args):
        model = self.language.LanguageModel(args)
        TRAINED.get(args.model_type, lambda _: None)(model)
        return Text(model)


def classes(config):
    """As mlx-lm's `_get_classes`; None for models of its own."""
    if config["model_type"] not in BEYOND:
        return None
    maker = Maker(config["model_type"])
    return maker, maker
