"""The text models that mlx-vlm has and mlx-lm lacks, as mlx-lm's tools take models.

mlx-vlm's files of models need no more than Pillow: `pip install --no-deps mlx-vlm==0.7.10 pillow`.
"""

import importlib
import importlib.util
import sys
import types

import mlx.nn as nn

# Where the language model is, and its arguments' class.
BEYOND = {"cohere2_moe": "ModelConfig", "k2_horizon": "ModelConfig"}


def bare_package():
    """mlx_vlm's folders without what its own start imports: servers and readers of pictures and sound."""
    if "mlx_vlm" in sys.modules:
        return
    [folder] = importlib.util.find_spec("mlx_vlm").submodule_search_locations
    for name, path in (("mlx_vlm", folder), ("mlx_vlm.models", f"{folder}/models")):
        package = types.ModuleType(name)
        package.__path__ = [path]
        sys.modules[name] = package


class Text(nn.Module):
    def __init__(self, language_model, nested):
        super().__init__()
        self.language_model = language_model
        self.nested = nested

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
        return {f"language_model.{name}": x for name, x in self.language_model.sanitize(own).items()}


class Maker:
    """A model's arguments and the model, in the two calls that mlx-lm makes of them."""

    def __init__(self, model_type):
        bare_package()
        self.config = importlib.import_module(f"mlx_vlm.models.{model_type}.config")
        self.language = importlib.import_module(f"mlx_vlm.models.{model_type}.language")
        self.kind = BEYOND[model_type]

    def from_dict(self, config):
        text = config.get("text_config", config)
        return getattr(self.config, self.kind).from_dict(text), "text_config" in config

    def __call__(self, given):
        args, nested = given
        return Text(self.language.LanguageModel(args), nested)


def classes(config):
    """As mlx-lm's `_get_classes`; None for models of its own."""
    if config["model_type"] not in BEYOND:
        return None
    maker = Maker(config["model_type"])
    return maker, maker
