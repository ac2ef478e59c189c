"""mlx-lm's side of training.ts: the same shape, layers, tokens and optimizer, by its trainer's clock. Prints one JSON line."""

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import linear_to_lora_layers

parser = argparse.ArgumentParser()
parser.add_argument("shape")
parser.add_argument("--type", default="lora")
parser.add_argument("--dtype", default="bfloat16")
parser.add_argument("--bits", type=int)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--length", type=int, default=512)
parser.add_argument("--iterations", type=int, default=40)
parser.add_argument("--layers", type=int, default=16)
parser.add_argument("--samples", default="even")
parser.add_argument("--packed", action="store_true", help="nothing here: mlx-lm pads")
parser.add_argument("--checkpoint", action="store_true")
args = parser.parse_args()

config = json.loads((Path(__file__).parent / "shapes.json").read_text())[args.shape]
module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
mx.random.seed(0)
model = module.Model(module.ModelArgs.from_dict(config))
model.update(tree_map(lambda p: p.astype(getattr(mx, args.dtype)), model.parameters()))
if args.bits:
    nn.quantize(model, group_size=64, bits=args.bits)
mx.eval(model.parameters())
model.freeze()
if args.type == "full":
    for layer in model.layers[-args.layers :]:
        layer.unfreeze()
else:
    linear_to_lora_layers(model, args.layers, {"rank": 8, "dropout": 0.0, "scale": 20.0}, use_dora=args.type == "dora")
mx.clear_cache()
mx.reset_peak_memory()


def sample(index):
    size = args.length
    if args.samples == "mixed":
        size = max(8, -(-args.length * (1 + index * 7919 % 97) // 97))
    return (np.arange(size) + index) * 7919 % config["vocab_size"]


def batches(**_):
    samples = [sample(index) for index in range(64 * args.batch)]
    while True:
        for first in range(0, len(samples), args.batch):
            rows = samples[first : first + args.batch]
            longest = max(len(row) for row in rows)
            tokens = np.zeros((args.batch, min(1 + 32 * -(-longest // 32), args.length)), np.int32)
            for row, ids in zip(tokens, rows):
                row[: len(ids)] = ids
            yield mx.array(tokens), mx.array([(0, len(row)) for row in rows])


class Callback:
    def __init__(self):
        self.speeds = []
        self.losses = []

    def on_train_loss_report(self, info):
        self.speeds.append(info["tokens_per_second"])
        self.losses.append(info["train_loss"])


callback = Callback()
with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    train(
        model,
        optim.Adam(learning_rate=1e-5),
        None,
        args=TrainingArgs(
            batch_size=args.batch,
            iters=args.iterations,
            steps_per_report=args.iterations // 4,
            steps_per_save=args.iterations + 1,
            adapter_file=Path(folder) / "adapters.safetensors",
            grad_checkpoint=args.checkpoint,
        ),
        iterate_batches=batches,
        training_callback=callback,
    )
figures = {
    "tokens_per_second": sum(callback.speeds[1:]) / (len(callback.speeds) - 1),
    "peak_memory": mx.get_peak_memory() / 1e9,
    "loss": callback.losses[-1],
}
print(json.dumps(figures), file=sys.stdout)
