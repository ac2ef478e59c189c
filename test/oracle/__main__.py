"""Regenerates test/fixtures from Python mlx-lm, the oracle: `python test/oracle` with requirements.txt installed."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = [
    "weights", "rounding", "randoms", "indexing", "ops", "quantize", "grads", "optimizers", "ropes", "caches",
    "kv_quantization", "limited_caches", "prompt_caches", "samplers", "draws", "model_types", "models", "mtp", "prism", "checkpoint",
    "convert", "text", "tiktokens", "templates",
    "tools", "chat", "formats", "expert_scales", "layouts", "tune", "evaluate", "evaluate_tasks", "evaluate_ports", "quant", "quant_awq",
    "quant_dwq", "gguf", "gguf_words", "gguf_types", "gguf_models", "gguf_tokenizers", "flags", "vision",
]

for script in SCRIPTS:
    print(f"-- {script}", flush=True)
    subprocess.run([sys.executable, Path(__file__).parent / f"{script}.py"], check=True)
