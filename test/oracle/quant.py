"""GPTQ and dynamic quantization: what mlx-lm makes of tiny models with weights by formula, and the rows that it draws."""

import contextlib
import io
import os
import tempfile
from pathlib import Path

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.quant import dynamic_quant, gptq
from mlx_lm.quant import utils as data

import encode
from architectures import CONFIGS, SALTS
from models import build
from weights import uniform

ROWS, LENGTH = 20, 16
GPTQ = {"bits": 4, "group_size": 32, "fallback_bits": 6, "fallback_group_size": 32}
WIDTHS = {"low_bits": 3, "low_group_size": 32, "high_bits": 5, "high_group_size": 32}
TARGETS = [4.2, 5.0, 5.9]
GPTQ_MODELS = ["llama", "llama_bias", "qwen3", "gemma3_text_untied", "mixtral", "mamba2"]
DYNAMIC_MODELS = ["llama", "llama_bias", "mixtral"]


def rows(name):
    ids = (uniform(f"quant {name}", ROWS * LENGTH) + 1) / 2 * CONFIGS[name]["vocab_size"]
    return ids.astype(int).reshape(ROWS, LENGTH)


def described(name, shapes):
    return {"name": name, "config": CONFIGS[name], "salt": SALTS.get(name, 0), "weights": shapes, "rows": rows(name).tolist()}


def quietly(fn, *args, **kwargs):
    with contextlib.redirect_stderr(io.StringIO()):
        return fn(*args, **kwargs)


def gptq_fixture(name):
    model, shapes = build(name, SALTS.get(name, 0))
    exact = model(mx.array(rows(name)))
    model, config = quietly(gptq.gptq_quantize, model, mx.array(rows(name)), **GPTQ)
    scales = {k: encode.float32(v) for k, v in sorted(tree_flatten(model.parameters())) if k.endswith(".scales")}
    error = (model(mx.array(rows(name))) - exact).square().mean().item()
    return {**described(name, shapes), "quantization": config, "scales": scales, "error": encode.number(error)}


def dynamic_fixture(name):
    model, shapes = build(name, SALTS.get(name, 0))
    sensitivities = quietly(dynamic_quant.estimate_sensitivities, model, mx.array(rows(name)), *WIDTHS.values())
    found = [
        {
            "target": target,
            "threshold": dynamic_quant.estimate_threshold(model, dict(sensitivities), target, *WIDTHS.values()),
        }
        for target in TARGETS
    ]
    return {**described(name, shapes), "sensitivities": sensitivities, "thresholds": found}


class Letters:
    """A tokenizer of one token a letter."""

    def encode(self, text, return_tensors):
        return mx.array([list(text.encode())])


def drawn(count, length, samples):
    """Rows that a seed draws from a text."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / ".cache/mlx-lm/calibration_v5.txt"
        path.parent.mkdir(parents=True)
        text = "".join(chr(97 + (i * i + i // 7) % 26) for i in range(count))
        path.write_text(text)
        os.environ["HOME"] = home
        mx.random.seed(123)
        return {"text": text, "length": length, "samples": samples, "rows": data.load_data(Letters(), samples, length).tolist()}


if __name__ == "__main__":
    encode.write("quant-gptq.json", {"options": GPTQ, "models": [gptq_fixture(name) for name in GPTQ_MODELS]})
    encode.write("quant-dynamic.json", {"options": WIDTHS, "models": [dynamic_fixture(name) for name in DYNAMIC_MODELS]})
    encode.write("quant-data.json", [drawn(500, 16, -1), drawn(500, 16, 7), drawn(333, 10, 100)])
