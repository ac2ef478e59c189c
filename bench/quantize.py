"""mlx-lm's side of quantize.ts: the same method, model, flags and text, timed behind the imports. Prints one JSON line.

DWQ's `--data-path` is a file of JSON Lines: a stand-in for the `datasets` package reads it.
"""

import contextlib
import importlib
import json
import resource
import sys
import tempfile
import time
import types
from pathlib import Path

import mlx.core as mx


def load_dataset(path, split="train", **_):
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return rows if split == "train" else rows[:1]


sys.modules["datasets"] = types.SimpleNamespace(load_dataset=load_dataset)
method, words = sys.argv[1], sys.argv[2:]
module = importlib.import_module(f"mlx_lm.quant.{method}")
with tempfile.TemporaryDirectory() as scratch:
    given = [] if "--mlx-path" in words else ["--mlx-path", f"{scratch}/model"]
    sys.argv = [method, *words, *given]
    began = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        module.main()
    seconds = time.perf_counter() - began
peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
figures = {"seconds": seconds, "peak_memory": mx.get_peak_memory() / 1e9, "peak_rss": peak_rss}
print(json.dumps({**figures, **{f"{name}_with_report": value for name, value in figures.items()}}))
