"""llama.cpp's speed on one shape with random weights, on the CPU: what CPU kernels are measured against.

    python bench/llama-cpp.py SHAPE [--type Q4_0] [--threads 2] [--batch 1] [--prompt 512] [--tokens 64] [--folder DIR]

Needs `pip install llama-cpp-python gguf`. Prints one JSON line: tokens a second of prompt and decoding, all sequences
together. The model is made in DIR once per shape and type.
"""

import argparse
import ctypes
import json
import pathlib
import tempfile
import time

import gguf
import llama_cpp
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("shape")
parser.add_argument("--type", default="Q4_0", choices=["Q4_0", "Q8_0", "F16", "BF16", "F32"])
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--prompt", type=int, default=512)
parser.add_argument("--tokens", type=int, default=64)
parser.add_argument("--folder", default=str(pathlib.Path(tempfile.gettempdir()) / "mlxlm-bench"))
args = parser.parse_args()
config = json.loads((pathlib.Path(__file__).parent / "shapes.json").read_text())[args.shape]


def write_model(path):
    """A llama of random float16 weights."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim", hidden // heads)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    random = np.random.default_rng(0)

    def add(name, *shape):
        one_dim = len(shape) == 1
        values = np.ones(shape, np.float32) if one_dim else random.standard_normal(shape, np.float32) * 0.02
        writer.add_tensor(name + ".weight", values if one_dim else values.astype(np.float16))

    add("token_embd", config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        add(f"blk.{i}.attn_norm", hidden)
        add(f"blk.{i}.attn_q", heads * head_dim, hidden)
        add(f"blk.{i}.attn_k", kv_heads * head_dim, hidden)
        add(f"blk.{i}.attn_v", kv_heads * head_dim, hidden)
        add(f"blk.{i}.attn_output", hidden, heads * head_dim)
        add(f"blk.{i}.ffn_norm", hidden)
        add(f"blk.{i}.ffn_gate", ffn, hidden)
        add(f"blk.{i}.ffn_up", ffn, hidden)
        add(f"blk.{i}.ffn_down", hidden, ffn)
    add("output_norm", hidden)
    if not config["tie_word_embeddings"]:
        add("output", config["vocab_size"], hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


llama_cpp.llama_log_set(ctypes.cast(None, llama_cpp.llama_log_callback), None)
llama_cpp.llama_backend_init()
folder = pathlib.Path(args.folder)
folder.mkdir(parents=True, exist_ok=True)
path = folder / f"{args.shape}-{args.type}.gguf"
if not path.exists():
    plain = folder / f"{args.shape}-F16.gguf"
    if not plain.exists():
        write_model(str(plain))
    if args.type != "F16":
        how = llama_cpp.llama_model_quantize_default_params()
        how.ftype = getattr(llama_cpp, "LLAMA_FTYPE_" + {"F32": "ALL_F32"}.get(args.type, "MOSTLY_" + args.type))
        # As mlx-lm does: the embeddings, which are the output layer too, like everything else.
        how.pure = True
        how.nthread = args.threads
        if llama_cpp.llama_model_quantize(str(plain).encode(), str(path).encode(), how) != 0:
            raise SystemExit(f"llama.cpp could not write {path}")

model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
how = llama_cpp.llama_context_default_params()
how.n_ctx = args.batch * (args.prompt + args.tokens + 8)
how.n_batch = how.n_ubatch = 512
how.n_threads = how.n_threads_batch = args.threads
how.n_seq_max = args.batch
context = llama_cpp.llama_init_from_model(model, how)
memory = llama_cpp.llama_get_memory(context)
vocab = config["vocab_size"]


def decode(rows, wanted):
    """Runs (token, position, sequence) rows; logits of those in `wanted`."""
    batch = llama_cpp.llama_batch_init(len(rows), 0, 1)
    batch.n_tokens = len(rows)
    for i, (token, position, sequence) in enumerate(rows):
        batch.token[i], batch.pos[i] = token, position
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        batch.logits[i] = i in wanted
    if llama_cpp.llama_decode(context, batch) != 0:
        raise SystemExit("llama.cpp could not decode")
    llama_cpp.llama_batch_free(batch)


def best(row):
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, row), (vocab,))
    return int(logits.argmax())


def run():
    llama_cpp.llama_memory_clear(memory, True)
    began = time.perf_counter()
    tokens = []
    for sequence in range(args.batch):
        prompt = [(i * 7919 + sequence) % vocab for i in range(args.prompt)]
        for start in range(0, args.prompt, 512):
            rows = [(token, start + i, sequence) for i, token in enumerate(prompt[start : start + 512])]
            decode(rows, {len(rows) - 1} if start + 512 >= args.prompt else set())
        tokens.append(best(-1))
    prompt_time = time.perf_counter() - began
    began = time.perf_counter()
    for step in range(args.tokens):
        rows = [(token, args.prompt + step, sequence) for sequence, token in enumerate(tokens)]
        decode(rows, set(range(len(rows))))
        tokens = [best(row) for row in range(len(rows))]
    return prompt_time, time.perf_counter() - began


run()
prompt_time, decode_time = run()
print(
    json.dumps(
        {
            "prompt_tps": args.batch * args.prompt / prompt_time,
            "generation_tps": args.batch * args.tokens / decode_time,
            "peak_memory": None,
        }
    )
)
