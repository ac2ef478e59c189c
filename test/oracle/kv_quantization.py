"""Greedy tokens and log-probabilities of a tiny Llama whose KV cache is quantized while it grows."""

import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.models import llama

import encode
from weights import weight

# Heads of 64, which every group size divides.
CONFIG = {
    "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 2, "intermediate_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
SALT = 4
PROMPT = [7, 201, 42, 99, 13, 250, 128, 64, 5, 77]
TOKENS = 24
COLUMNS = 16
RUNS = [(8, 64, 0), (4, 64, 0), (4, 32, 16), (2, 32, 5), (3, 64, 0), (6, 32, 0)]  # bits, group size, start

model = llama.Model(llama.ModelArgs.from_dict(CONFIG))
shapes = {k: v.shape for k, v in tree_flatten(model.parameters())}
model.load_weights([(k, mx.array(weight(k, s, SALT))) for k, s in shapes.items()])
mx.eval(model.parameters())


def run(bits, group_size, start):
    steps = generate_step(
        mx.array(PROMPT), model, max_tokens=TOKENS, kv_bits=bits, kv_group_size=group_size, quantized_kv_start=start
    )
    tokens, rows, gaps = [], [], []
    for token, logprobs in steps:
        best, second = mx.topk(logprobs, 2).tolist()[::-1]
        gaps.append(best - second)
        tokens.append(token)
        rows.append(logprobs[::COLUMNS])
    print(f"  {bits} bits, group {group_size}: smallest gap {min(gaps):.1e}, {len(set(tokens))} distinct")
    return {"bits": bits, "groupSize": group_size, "start": start, "tokens": tokens,
            "logprobs": encode.float32(mx.stack(rows))}


if __name__ == "__main__":
    encode.write("kv-quantization.json", {"config": CONFIG, "salt": SALT, "weights": shapes, "prompt": PROMPT,
                                      "columns": COLUMNS, "runs": [run(*r) for r in RUNS]})
