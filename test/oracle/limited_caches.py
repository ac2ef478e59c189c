"""Greedy tokens of gpt-oss, DeepSeek V3 and Qwen 2 with caches that forget (`max_kv_size`) and that are packed (`kv_bits`).

With packed caches mlx-lm fails on gpt-oss (it packs no sliding window, and knows no sinks there) and on DeepSeek V3, and it limits
no model that makes its own caches.
"""

import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
from mlx_lm.generate import generate_step

import encode
from architectures import CONFIGS, SALTS
from models import PROMPT, build

# Heads and latent vectors of 64, which the groups divide.
WIDE = {
    "gpt_oss": {"head_dim": 64}, "deepseek_v3": {"kv_lora_rank": 64, "qk_rope_head_dim": 64}, "qwen2": {"hidden_size": 256},
}
RUNS = {
    "gpt_oss": [{"max_kv_size": 64}],
    "deepseek_v3": [{"max_kv_size": 12}],
    "qwen2": [{"max_kv_size": 12}, {"kv_bits": 8, "quantized_kv_start": 0}, {"kv_bits": 4, "quantized_kv_start": 14}],
}
COUNT = 32


def case(name):
    wide = f"{name}_wide"
    CONFIGS[wide], SALTS[wide] = {**CONFIGS[name], **WIDE[name]}, SALTS[name]
    model, shapes = build(wide, SALTS[name])
    runs = []
    for options in RUNS[name]:
        tokens, gaps = [], []
        for token, logprobs in generate_step(mx.array(PROMPT), model, max_tokens=COUNT, **options):
            best, second = mx.topk(logprobs, 2).tolist()[::-1]
            tokens.append(token)
            gaps.append(best - second)
        print(f"  {name} {options}: smallest gap {min(gaps):.1e}, {len(set(tokens))} distinct of {COUNT}")
        runs.append({"options": options, "tokens": tokens})
    return {"config": CONFIGS[wide], "salt": SALTS[name], "weights": shapes, "prompt": PROMPT, "runs": runs}


if __name__ == "__main__":
    encode.write("limited-caches.json", {name: case(name) for name in RUNS})
