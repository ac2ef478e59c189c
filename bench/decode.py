"""mlx-lm's side of decode.ts: the same shape, random weights, greedy, by mlx-lm's own clock; on ranks the model is divided among
them. Prints one JSON line."""

import argparse
import importlib
import json
import time
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map
from mlx_lm.generate import batch_generate, generate_step, wired_limit

parser = argparse.ArgumentParser()
parser.add_argument("shape")
parser.add_argument("--dtype", default="bfloat16")
parser.add_argument("--bits", type=int)
parser.add_argument("--prompt", type=int, default=128)
parser.add_argument("--tokens", type=int, default=256)
parser.add_argument("--batch", type=int, default=1)
args = parser.parse_args()

config = json.loads((Path(__file__).parent / "shapes.json").read_text())[args.shape]
module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
mx.random.seed(0)
model = module.Model(module.ModelArgs.from_dict(config))
model.update(tree_map(lambda p: p.astype(getattr(mx, args.dtype)), model.parameters()))
if args.bits:
    nn.quantize(model, group_size=64, bits=args.bits)
group = mx.distributed.init()
if group.size() > 1:
    model.shard(group)
mx.eval(model.parameters())
mx.clear_cache()
mx.reset_peak_memory()


def prompt_of(row):
    return [(i * 7919 + row) % config["vocab_size"] for i in range(args.prompt)]


class NoText:
    """In the place of a tokenizer: nothing ends an answer, and nobody reads it."""

    eos_token_ids = ()

    def decode(self, _):
        return ""


def run_batch():
    stats = batch_generate(model, NoText(), [prompt_of(row) for row in range(args.batch)], max_tokens=args.tokens).stats
    return {"prompt_tps": stats.prompt_tps, "generation_tps": stats.generation_tps}


def run():
    prompt = mx.array(prompt_of(0))
    began = time.perf_counter()
    cpu_began = time.process_time()
    for n, _ in enumerate(generate_step(prompt, model, max_tokens=args.tokens)):
        if n == 0:
            prompt_time = time.perf_counter() - began
            prompt_cpu = time.process_time() - cpu_began
            began = time.perf_counter()
            cpu_began = time.process_time()
    decode_time = time.perf_counter() - began
    return prompt_time, decode_time, prompt_cpu, time.process_time() - cpu_began


def run_one():
    prompt_time, decode_time, prompt_cpu, decode_cpu = run()
    return {
        "prompt_tps": args.prompt / prompt_time,
        "generation_tps": args.tokens / decode_time,
        "prompt_per_cpu_s": args.prompt / prompt_cpu,
        "generation_per_cpu_s": args.tokens / decode_cpu,
    }


measured = run_one if args.batch == 1 else run_batch
with wired_limit(model):
    measured()
    figures = measured()
print(json.dumps({**figures, "peak_memory": mx.get_peak_memory() / 1e9}))
