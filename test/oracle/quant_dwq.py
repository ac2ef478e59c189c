"""DWQ fixtures: every loss of mlx-lm's dwq_quantize in float32, on tiny models with weights by formula."""

import contextlib
import io
import os
import tempfile
from pathlib import Path

os.environ["MLX_DISABLE_COMPILE"] = "1"

import copy

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten
from mlx_lm.quant import dwq

import encode
from architectures import CONFIGS, SALTS, config
from models import build

# Wide enough for targets in files, which keep 1024 logits.
CONFIGS["wide"] = config("llama", vocab_size=1280, num_hidden_layers=2, tie_word_embeddings=False)
SALTS["wide"] = 3
SEED, BATCH, LONGEST, RATE = 5, 2, 40, 1e-3
CASES = [
    {"name": "llama", "bits": 2, "targets": False, "checkpoint": False},
    {"name": "qwen3", "bits": 3, "targets": False, "checkpoint": True},
    {"name": "mixtral", "bits": 2, "targets": False, "checkpoint": False},
    {"name": "wide", "bits": 2, "targets": True, "checkpoint": False},
]


def samples(count, first, vocabulary):
    """Ids that repeat with a period; test code makes the same."""
    rows = []
    for i in range(first, first + count):
        length = [9, 20, 33, 14][i % 4] + i
        rows.append(([(7 * i + 13 * (t % (3 + i % 4)) + 1) % vocabulary for t in range(length)][:LONGEST], 0))
    return rows


def curve(case):
    name = case["name"]
    teacher, shapes = build(name, SALTS[name])
    student = copy.deepcopy(teacher)
    nn.quantize(student, group_size=32, bits=case["bits"])
    vocabulary = CONFIGS[name]["vocab_size"]
    train, valid = samples(42, 0, vocabulary), samples(6, 42, vocabulary)
    numbers, all_sum = [], mx.distributed.all_sum
    mx.distributed.all_sum = lambda x, **kwargs: numbers.append(x.item()) or x
    lines, write = [], dwq.tqdm.write
    dwq.tqdm.write = lines.append
    target_fn = lambda batch, idx, split: teacher(batch)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()) as printed, tempfile.TemporaryDirectory() as folder:
        if case["targets"]:
            dwq.compute_dwq_targets(teacher, Path(folder), train, valid, BATCH, LONGEST, SEED)

            def target_fn(_, idx, split):
                found = mx.load(f"{folder}/{split}/{idx:010d}.safetensors")
                return found["logits"], found["indices"]

        try:
            dwq.dwq_quantize(
                student, target_fn, optim.Adam(learning_rate=RATE, bias_correction=True), train, valid, batch_size=BATCH,
                max_seq_length=LONGEST, seed=SEED, dtype=mx.float32, gradient_checkpoint=case["checkpoint"],
            )
        finally:
            mx.distributed.all_sum, dwq.tqdm.write = all_sum, write
    print(name, printed.getvalue().strip(), lines)
    trained = dict(tree_flatten(student.trainable_parameters()))
    return {
        **case, "weights": shapes, "config": CONFIGS[name], "salt": SALTS[name],
        "losses": encode.numbers(numbers[::2]), "tokens": numbers[1::2],
        "trainable": printed.getvalue().strip(), "lines": lines,
        "saved": {path: encode.number(x.square().mean().item()) for path, x in sorted(trained.items())},
    }


if __name__ == "__main__":
    settings = {"seed": SEED, "batch": BATCH, "longest": LONGEST, "rate": RATE}
    encode.write("quant-dwq.json", {**settings, "curves": [curve(case) for case in CASES]})
