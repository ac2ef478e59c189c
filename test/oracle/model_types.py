"""mlx-lm's model types: the modules that define a model, what config.json calls others, and what architectures pick."""

import pkgutil

import mlx_lm.models
from mlx_lm.utils import MODEL_ARCHITECTURE_REMAPPING, MODEL_REMAPPING

import encode


def defines_model(finder, name):
    source = finder.find_spec(name).loader.get_source(name)
    return "class Model(" in source


if __name__ == "__main__":
    own = sorted(m.name for m in pkgutil.iter_modules(mlx_lm.models.__path__) if defines_model(m.module_finder, m.name))
    architectures = [[*key, value] for key, value in MODEL_ARCHITECTURE_REMAPPING.items()]
    encode.write("model-types.json", {"own": own, "remapped": MODEL_REMAPPING, "architectures": architectures})
