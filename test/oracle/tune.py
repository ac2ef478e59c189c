"""Fine-tuning fixtures: adapter layers, what a seed draws, decoding with adapters, and loss curves of the trainer.

    python tune.py [settings|data|layers|models|curves|fuses ...]
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import types
from pathlib import Path

os.environ["MLX_DISABLE_COMPILE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import mlx_lm.tuner.trainer as trainer
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import ReadInstruction
from mlx.utils import tree_flatten
from mlx_lm import fuse, load, lora
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.tuner.datasets import CacheDataset, load_dataset
from mlx_lm.tuner.dora import DoRAEmbedding, DoRALinear
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear, LoRASwitchLinear
from mlx_lm.tuner.utils import linear_to_lora_layers, print_trainable_parameters
from mlx_lm.utils import _parse_size

import encode
from architectures import SALTS
from models import build, greedy, logits, PROMPT
from weights import uniform, weight

SALT = 5
CHECKPOINT = encode.FIXTURES / "checkpoint"
RANK, SCALE = 4, 3.0
INPUT, OUTPUT, EXPERTS, COUNT = 32, 12, 3, 10
IDS = [[3, 9, 0], [7, 3, 5]]
EXPERTS_USED = [[1, 2], [0, 1], [2, 2]]


def formula(key, *shape):
    size = 1
    for n in shape:
        size *= n
    return mx.array(uniform(key, size)).reshape(shape)


def tensor(x):
    return {"dtype": str(x.dtype).removeprefix("mlx.core."), "shape": list(x.shape), "float32": encode.float32(x)}


def fill(module, prefix=""):
    """Every parameter by formula, under its name."""
    module.update(nn.utils.tree_unflatten([
        (name, formula(f"{prefix}{name}", *x.shape)) for name, x in tree_flatten(module.parameters())
    ]))
    return module


PACKINGS = {"plain": None, "affine4": (32, 4, "affine"), "affine6": (32, 6, "affine"), "mxfp4": (32, 4, "mxfp4")}
BASES = {
    "linear": (lambda: nn.Linear(INPUT, OUTPUT, bias=False), LoRALinear, DoRALinear),
    "biased": (lambda: nn.Linear(INPUT, OUTPUT), LoRALinear, DoRALinear),
    "embedding": (lambda: nn.Embedding(COUNT, INPUT), LoRAEmbedding, DoRAEmbedding),
    "switch": (lambda: SwitchLinear(INPUT, OUTPUT, EXPERTS, bias=False), LoRASwitchLinear, None),
    "biased_switch": (lambda: SwitchLinear(INPUT, OUTPUT, EXPERTS, bias=True), LoRASwitchLinear, None),
}


def pack(base, how):
    group_size, bits, mode = how
    if isinstance(base, nn.Linear):
        return nn.QuantizedLinear.from_linear(base, group_size, bits, mode=mode)
    if isinstance(base, nn.Embedding):
        return nn.QuantizedEmbedding.from_embedding(base, group_size, bits, mode=mode)
    return base.to_quantized(group_size, bits, mode=mode)


def results(layer, base):
    """What the adapter computes, by name."""
    if base == "embedding":
        ids = mx.array(IDS)
        return {"forward": layer(ids), "as_linear": layer.as_linear(formula("x", 2, 3, INPUT))}
    if "switch" in base:
        x = formula("x", 3, 1, 1, INPUT)
        return {"forward": layer(x, mx.array(EXPERTS_USED))}
    return {"forward": layer(formula("x", 2, 3, INPUT))}


def dense(module):
    """The layer's weight in floating point."""
    if not hasattr(module, "bits"):
        return module.weight
    return mx.dequantize(
        module.weight, module.scales, module.biases, group_size=module.group_size, bits=module.bits, mode=module.mode
    )


def layer_case(base, kind, packing):
    make, lora, dora = BASES[base]
    inner = fill(make(), "base.")
    how = PACKINGS[packing]
    if how:
        inner = pack(inner, how)
    wrapper = lora if kind == "lora" else dora
    if wrapper is DoRALinear and how and how[1] == 6:
        # Its from_base takes a wrong width for 6 bits.
        layer = DoRALinear(INPUT, OUTPUT, r=RANK, scale=SCALE)
        layer.set_linear(inner)
    else:
        layer = wrapper.from_base(inner, r=RANK, dropout=0.0, scale=SCALE)
    layer.freeze()
    layer.unfreeze(keys=["lora_a", "lora_b", "m"], recurse=False)
    own = {name: formula(name, *x.shape) for name, x in tree_flatten(layer.trainable_parameters())}
    if kind == "dora":
        own["m"] = layer.m * 1.25
    layer.update(own)
    layer.eval()

    def loss(parameters):
        layer.update(parameters)
        return sum(x.square().mean() for x in results(layer, base).values())

    row = {"base": base, "kind": kind, "packing": packing}
    row["results"] = {name: tensor(x) for name, x in results(layer, base).items()}
    value, gradients = mx.value_and_grad(loss)(own)
    row["loss"] = encode.number(value.item())
    row["gradients"] = {name: tensor(x) for name, x in sorted(gradients.items())}
    layer.update(own)
    row["fused"] = tensor(dense(layer.fuse()))
    row["fused_bits"] = getattr(layer.fuse(), "bits", None)
    row["dequantized"] = tensor(layer.fuse(dequantize=True).weight)
    return row


def layers():
    rows = []
    for base, (_, _, dora) in BASES.items():
        for kind in ["lora", "dora"] if dora else ["lora"]:
            for packing in PACKINGS:
                biased = base.startswith("biased") and packing not in ("plain", "affine4")
                if biased or (base == "embedding" and kind == "dora" and packing != "plain"):
                    continue
                rows.append(layer_case(base, kind, packing))
    encode.write_lines("tune-layers.json", rows)


def adapted(name, kind, num_layers, parameters, quantized=False):
    """A model with adapters as a seed draws them."""
    model, shapes = build(name, SALTS.get(name, 0), quantized=quantized)
    model.freeze()
    mx.random.seed(7)
    linear_to_lora_layers(model, num_layers, parameters, use_dora=kind == "dora")
    return model, shapes


def printed(model):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print_trainable_parameters(model)
    return out.getvalue().strip()


ALL = {"rank": RANK, "scale": SCALE, "dropout": 0.0}
CASES = [
    ("llama", "lora", -1, ALL, False),
    ("llama", "lora", 2, {**ALL, "keys": ["self_attn.v_proj", "mlp.down_proj"]}, True),
    ("llama_bias", "lora", 1, {**ALL, "keys": ["self_attn.q_proj", "lm_head"]}, False),
    ("llama", "dora", 2, {**ALL, "keys": ["self_attn.q_proj", "model.embed_tokens"]}, False),
    ("llama", "lora", 2, {**ALL, "keys": ["model.embed_tokens"]}, True),
    ("qwen3", "lora", 16, ALL, False),
    ("qwen3", "dora", 2, ALL, True),
    ("mixtral", "lora", -1, ALL, False),
    ("mixtral", "lora", 1, ALL, True),
    ("phi3", "lora", -1, ALL, False),
    ("gemma3_text", "lora", 3, ALL, False),
    ("qwen3_5", "lora", -1, ALL, False),
    ("qwen3_5_moe", "lora", 1, ALL, True),
    ("qwen2", "lora", -1, ALL, False),
    ("gpt_oss", "lora", -1, ALL, False),
    ("gpt_oss", "lora", 2, ALL, True),
    ("gpt_oss", "dora", 2, {**ALL, "keys": ["self_attn.q_proj", "mlp.router"]}, False),
    ("deepseek_v3", "lora", -1, ALL, False),
    ("deepseek_v3", "lora", 2, ALL, True),
    ("deepseek_v3", "dora", 2, {**ALL, "keys": ["self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"]}, False),
]


def model_case(name, kind, num_layers, parameters, quantized):
    model, shapes = adapted(name, kind, num_layers, parameters, quantized)
    drawn = tree_flatten(model.trainable_parameters())
    row = {"name": name, "kind": kind, "num_layers": num_layers, "parameters": parameters, "quantized": quantized}
    row["trainable"] = {path: list(x.shape) for path, x in drawn}
    row["line"] = printed(model)
    # The first number that each adapter drew tells their order.
    row["drawn"] = {path: encode.number(x.reshape(-1)[0].item()) for path, x in drawn if path.endswith("lora_a")}
    model.load_weights([(path, mx.array(weight(path, x.shape, SALT)) * 0.3) for path, x in drawn if path[-2:] != ".m"], strict=False)
    model.eval()
    row["logits"] = logits(model, [PROMPT])
    row["greedy"], gap = greedy(model, 24)
    print(f"  {name} {kind} smallest gap {gap:.1e}")
    return row


def models():
    encode.write_lines("tune-models.json", [model_case(*case) for case in CASES])


SAMPLES, LENGTHS, BATCH = 12, [9, 20, 33, 14], 2
STEPS, RATE = 100, 1e-3


def samples(vocabulary):
    """Token ids that repeat with a period of their own, so that there is something to learn; an offset for some."""
    rows = []
    for i in range(SAMPLES):
        length = LENGTHS[i % len(LENGTHS)] + i
        period = 3 + i % 4
        rows.append(([(7 * i + 13 * (t % period) + 1) % vocabulary for t in range(length)], i % 3))
    return rows


def in_order(dataset, batch_size, max_seq_length, loop=False, seed=None, comm_group=None):
    """The reference's batches without its shuffling, so that the fixture does not hang on the data's order."""
    permutation = trainer.np.random.permutation
    trainer.np.random.permutation = lambda n: list(range(n))
    try:
        yield from trainer.iterate_batches(dataset, batch_size, max_seq_length, loop, seed, comm_group)
    finally:
        trainer.np.random.permutation = permutation


class Recorder:
    def __init__(self):
        self.train, self.val = [], []

    def on_train_loss_report(self, info):
        self.train.append(info)

    def on_val_loss_report(self, info):
        self.val.append(info)


CURVES = [
    ("llama", "lora", {}), ("llama", "dora", {}), ("llama", "full", {}),
    ("qwen3", "lora", {}), ("qwen3", "dora", {"keys": ["self_attn.q_proj", "self_attn.v_proj"]}), ("qwen3", "full", {}),
    ("mixtral", "lora", {}),
    ("mixtral", "dora", {"keys": ["self_attn.q_proj", "self_attn.o_proj"]}),
    ("mixtral", "full", {}),
    ("llama", "lora", {"quantized": True}),
    ("llama", "lora", {"accumulation": 3}),
    ("llama", "lora", {"checkpoint": True}),
    ("mixtral", "full", {"checkpoint": True}),
    ("qwen2", "lora", {}), ("qwen2", "full", {}),
    ("gpt_oss", "lora", {}), ("gpt_oss", "dora", {"keys": ["self_attn.q_proj", "self_attn.v_proj"]}),
    ("gpt_oss", "full", {"checkpoint": True, "optimizer": "sgd"}), ("gpt_oss", "lora", {"quantized": True}),
    ("deepseek_v3", "lora", {}), ("deepseek_v3", "dora", {"keys": ["self_attn.q_b_proj", "self_attn.o_proj"]}),
    ("deepseek_v3", "full", {"checkpoint": True, "optimizer": "sgd"}), ("deepseek_v3", "lora", {"quantized": True}),
    ("llama", "lora", {"optimizer": "adamw"}), ("qwen3", "full", {"optimizer": "adamw"}),
    ("llama", "lora", {"optimizer": "sgd"}), ("mixtral", "full", {"optimizer": "sgd"}),
    ("llama", "lora", {"optimizer": "muon"}), ("qwen3", "full", {"optimizer": "muon"}),
    ("llama", "lora", {"optimizer": "adafactor"}), ("qwen3", "full", {"optimizer": "adafactor"}),
]
OPTIMIZERS = {
    "adam": lambda: optim.Adam(RATE),
    "adamw": lambda: optim.AdamW(RATE, weight_decay=0.1, bias_correction=True),
    "sgd": lambda: optim.SGD(optim.cosine_decay(1e-1, STEPS), momentum=0.5, nesterov=True, weight_decay=0.01),
    "muon": lambda: optim.Muon(RATE),
    "adafactor": lambda: optim.Adafactor(RATE),
}


def curve(name, kind, options):
    model, shapes = build(name, SALTS.get(name, 0), quantized=options.get("quantized", False))
    model.freeze()
    mx.random.seed(11)
    parameters = {**ALL, "keys": options.get("keys")}
    if kind == "full":
        for block in model.layers[-2:]:
            block.unfreeze()
    else:
        linear_to_lora_layers(model, 2, parameters, use_dora=kind == "dora")
    recorder = Recorder()
    block_type = type(model.layers[0])
    call = block_type.__call__
    with tempfile.TemporaryDirectory() as folder:
        arguments = trainer.TrainingArgs(
            batch_size=BATCH, iters=STEPS, val_batches=3, steps_per_report=1, steps_per_eval=40, steps_per_save=1000,
            adapter_file=f"{folder}/adapters.safetensors", max_seq_length=40,
            grad_checkpoint=options.get("checkpoint", False), grad_accumulation_steps=options.get("accumulation", 1),
        )
        rows = samples(256)
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train(
                model, OPTIMIZERS[options.get("optimizer", "adam")](), rows, rows[:7], arguments, iterate_batches=in_order, training_callback=recorder
            )
        final = mx.load(f"{folder}/adapters.safetensors")
    block_type.__call__ = call
    return {
        "name": name, "kind": kind, **options,
        "losses": [encode.number(info["train_loss"]) for info in recorder.train],
        "tokens": recorder.train[-1]["trained_tokens"],
        "validations": [[info["iteration"], encode.number(info["val_loss"])] for info in recorder.val],
        "saved": {path: encode.number(x.square().mean().item()) for path, x in sorted(final.items())},
    }


def curves():
    encode.write_lines("tune-curves.json", [curve(*case) for case in CURVES])


FUSES = [
    ("lora", {**ALL, "keys": ["self_attn.v_proj", "mlp.down_proj", "lm_head"]}, False),
    ("lora", {**ALL, "keys": ["self_attn.v_proj", "model.embed_tokens"]}, True),
    ("dora", {**ALL, "keys": ["self_attn.q_proj", "mlp.up_proj"]}, False),
]


def write_adapter(folder, kind, parameters):
    """An adapter of the checkpoint, its weights by formula."""
    model, _ = load(str(CHECKPOINT))
    model.freeze()
    linear_to_lora_layers(model, 1, parameters, use_dora=kind == "dora")
    trained = tree_flatten(model.trainable_parameters())
    values = {path: mx.array(weight(path, x.shape, SALT)) for path, x in trained}
    # Lengths stay near those of the base.
    values = {path: x.astype(mx.float32) * 1.25 if path.endswith(".m") else values[path] for path, x in trained}
    mx.save_safetensors(str(folder / "adapters.safetensors"), values)
    config = {"fine_tune_type": kind, "num_layers": 1, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return {path: list(x.shape) for path, x in values.items()}


def fuse_case(kind, parameters, dequantize):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes = write_adapter(folder, kind, parameters)
        target = folder / "fused"
        sys.argv = ["fuse", "--model", str(CHECKPOINT), "--adapter-path", name, "--save-path", str(target)]
        sys.argv += ["--dequantize"] if dequantize else []
        with contextlib.redirect_stdout(io.StringIO()):
            fuse.main()
        weights = mx.load(str(target / "model.safetensors"))
        config = json.loads((target / "config.json").read_text())
    dense = {
        path: (mx.dequantize(x, weights[f"{path[:-7]}.scales"], weights[f"{path[:-7]}.biases"], group_size=64, bits=4)
               if x.dtype == mx.uint32 else x)
        for path, x in weights.items()
    }
    summary = {
        path: [str(weights[path].dtype).removeprefix("mlx.core."), list(weights[path].shape), *encode.numbers(
            [x.astype(mx.float32).square().mean().item(), x.astype(mx.float32).reshape(-1)[7].item()])]
        for path, x in sorted(dense.items())
    }
    return {"kind": kind, "parameters": parameters, "dequantize": dequantize, "adapter": shapes,
            "quantization": config.get("quantization"), "tensors": summary}


def fuses():
    encode.write_lines("tune-fuse.json", [fuse_case(*case) for case in FUSES])


YAMLS = [
    "learning_rate: 1e-5", "learning_rate: 1.0e-5", "learning_rate: 1E5", "a: .5e-3", "a: 1_000\nb: 0x1F\nc: 017\nd: 0b11",
    "train: yes\ntest: off\ngrad_checkpoint: True", "a: ~\nb: null\nc:", "a: '1e-5'\nb: \"yes\"", "a: .inf\nb: -.inf", "a: 1.5\nb: -3\nc: +4\nd: 1.",
    "lora_parameters:\n  keys: [self_attn.q_proj, 'self_attn.v_proj']\n  rank: 8\n  scale: 20.0\n  dropout: 0.0",
    "lr_schedule:\n  name: cosine_decay\n  warmup: 100 # steps\n  warmup_init: 1e-7\n  arguments: [1e-5, 1000, 1e-7]",
    "base: &b {rank: 4}\nlora_parameters:\n  <<: *b\n  scale: 2", "data: \"a\\tb\"\nmodel: mlx_model", "a: 1:30", "a: 12e03\nb: 5.\nc: 1e+3",
]


def settings():
    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list) else value

    rows = [{"text": text, "value": plain(yaml.load(text, lora.yaml_loader))} for text in YAMLS]
    for row in rows:
        row["value"] = {k: str(v) if isinstance(v, float) and abs(v) == float("inf") else v for k, v in row["value"].items()}
    sizes = {text: _parse_size(text) for text in ["10", "2M", "1.5GB", "3mb", "0", "7 G"]}
    encode.write("tune-settings.json", {"defaults": lora.CONFIG_DEFAULTS, "files": rows, "sizes": sizes})


TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}}}}}]
WORDS = "a bb ccc dddd eeeee the fox and the dog ran far away".split()


def words(i, count):
    return " ".join(WORDS[(3 * i + 5 * n) % len(WORDS)] for n in range(count))


def chat(i, last="assistant"):
    turns = [{"role": "user", "content": words(i, 3 + i % 4)}, {"role": "assistant", "content": words(i + 1, 2 + 7 * (i % 3))}]
    more = [{"role": "user", "content": words(i + 2, 4)}]
    return turns if last == "assistant" else turns + more


ROWS = {
    "text": [{"text": words(i, 2 + 3 * i)} for i in range(9)],
    "chat": [{"messages": chat(i, "user" if i % 4 == 3 else "assistant")} for i in range(9)],
    # Fields more or less: mlx-lm orders by how many there are.
    "tools": [{"messages": chat(i), **({"tools": TOOLS} if i % 3 == 0 else {}), **({"note": None} if i % 2 else {})} for i in range(9)],
    "completions": [{"prompt": words(i, 4), "completion": words(i + 2, 1 + 4 * (i % 4))} for i in range(9)],
    "renamed": [{"q": words(i, 3), "a": words(i + 1, 6), "text": "not this"} for i in range(9)],
}
DATASETS = [
    ("text", {}), ("chat", {}), ("chat", {"mask_prompt": True}), ("tools", {}), ("tools", {"mask_prompt": True}),
    ("completions", {"mask_prompt": True}), ("renamed", {"prompt_feature": "q", "completion_feature": "a"}),
    (None, {"hf_dataset": {"path": "text", "train_split": "train[2:-1]", "valid_split": "train[:50%]", "test_split": "train[7:]+train[:2]"}}),
    (None, {"hf_dataset": [
        {"path": "completions", "train_split": "train[:3]", "valid_split": "train[:4]", "test_split": "train"},
        {"path": "renamed", "prompt_feature": "q", "completion_feature": "a", "valid_split": "train[-2:]", "test_split": "train[:1]"},
        {"path": "text"} | {"train_split": "train[-20%:]", "valid_split": "train[:1]", "test_split": "train[3:4]"},
    ]}),
]
SLICES = ["train", "train[:]", "train[:10]", "train[5:]", "train[-7:]", "train[:-30]", "train[3:9]", "train[9:3]", "train[40:50]", "train[-90:4]",
          "train[:80%]", "train[-10%:]", "train[:50%]", "train[25%:50%]", "train[5:50%]", "train[:-1%]", "train[:10%](closest)", "train[1_0:2_0]",
          "a.b[1:3]", "train[:2]+a.b", "long[:33%](pct1_dropremainder)", "long[-15%:](pct1_dropremainder)", "a.b[:50%]", "a.b[:30%]",
          "train[:101%]", "train[:5%](pct1_dropremainder)", "train[:5](closest)", "train(closest)", "train[:10%](up)", "train[5]", "train[ 5:]", "other", "", "train[_:]"]
SIZES = {"train": 37, "a.b": 5, "long": 250}


def slices():
    rows = {}
    for text in SLICES:
        try:
            rows[text] = [[part.splitname, part.from_, part.to] for part in ReadInstruction.from_spec(text).to_absolute(SIZES)]
        except ValueError:
            rows[text] = None
    return rows


def dataset_case(kind, options):
    """The first three batches of training, and the validation and test sets' whole rounds, as one run draws them."""
    _, tokenizer = load(str(CHECKPOINT))
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in ROWS.items():
            Path(folder, f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if kind:
            for name in ["train", "valid", "test"]:
                Path(folder, f"{name}.jsonl").write_text(Path(folder, f"{kind}.jsonl").read_text())
        given = json.loads(json.dumps(options))
        for one in [given.get("hf_dataset", [])] if isinstance(given.get("hf_dataset"), dict) else given.get("hf_dataset", []):
            one["config"] = {"data_files": f"{folder}/{one['path']}.jsonl", "cache_dir": f"{folder}/cache"}
            one["path"] = "json"
        args = types.SimpleNamespace(data=folder, train=True, test=True, **given)
        with contextlib.redirect_stdout(io.StringIO()):
            sets = load_dataset(args, tokenizer)
    np.random.seed(3)
    runs = []
    for dataset, loop in zip(sets, [True, False, False]):
        batches = trainer.iterate_batches(CacheDataset(dataset), 2, 48, loop=loop)
        taken = [next(batches) for _ in range(5)] if loop else list(batches)
        runs.append([[ids.tolist(), [list(pair) for pair in lengths.tolist()]] for ids, lengths in taken])
    return {"kind": kind, "options": options, "batches": runs}


def data():
    pq.write_table(pa.Table.from_pylist(ROWS["chat"]), encode.FIXTURES / "tune-chats.parquet", compression="zstd")
    cases = [dataset_case(*case) for case in DATASETS]
    encode.write("tune-data.json", {"rows": ROWS, "cases": cases, "sizes": SIZES, "slices": slices()})


PARTS = {"settings": settings, "data": data, "layers": layers, "models": models, "curves": curves, "fuses": fuses}

if __name__ == "__main__":
    for part in sys.argv[1:] or list(PARTS):
        PARTS[part]()
