"""Logits and greedy tokens of a tiny Qwen 3.5 whose layers have 2 bits and rotated inputs."""

import os

os.environ["MLX_DISABLE_COMPILE"] = "1"

import math

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import _get_classes

import encode
from weights import uniform, weight

TEXT = {
    "model_type": "qwen3_5_text", "hidden_size": 512, "num_hidden_layers": 2, "intermediate_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 256, "rms_norm_eps": 1e-5,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4, "full_attention_interval": 2, "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
}
PACKED = {
    "model.embed_tokens": 512, "lm_head": 512, "model.layers.0.linear_attn.in_proj_qkv": 512,
    "model.layers.0.linear_attn.in_proj_z": 0, "model.layers.0.linear_attn.out_proj": 0,
    "model.layers.1.self_attn.q_proj": 512, "model.layers.1.self_attn.k_proj": 512,
    "model.layers.1.self_attn.v_proj": 512, "model.layers.1.self_attn.o_proj": 0,
    **{f"model.layers.{i}.mlp.{name}_proj": 512 for i in (0, 1) for name in ("gate", "up")},
    **{f"model.layers.{i}.mlp.down_proj": 0 for i in (0, 1)},
}
CONFIG = {
    "model_type": "prism_hadamard_qwen35", "schema_version": 2, "tensor_namespace": "mlx-vlm-qwen3_5",
    "gdn_activation_layout": "grouped", "quantization": {"bits": 2, "group_size": 128, "mode": "affine"},
    "modules": [
        {"path": path, "embedding": path.endswith("embed_tokens"), "dtype": "float16", "block": block}
        for path, block in PACKED.items()
    ],
    "text_config": TEXT,
}
PROMPT = [7, 201, 42, 99, 13, 250, 128, 64]
STEPS = [PROMPT[:5], PROMPT[5:6], PROMPT[6:]]
COUNT, COLUMNS = 8, 8
SALT = 3  # of a dozen, one whose greedy choices are far from a tie


def words(name, shape, salt):
    """Random words: 16 bits of each of two draws."""
    size = math.prod(shape)
    high, low = (((uniform(f"{salt}/{name}/{half}", size) + np.float32(1)) * np.float32(32768)) for half in ("high", "low"))
    return (high.astype(np.uint32) * np.uint32(65536) + low.astype(np.uint32)).reshape(shape)


def parameter(name, x, salt):
    """A parameter's value by formula: packed weights, their scales and signs, or as other models have theirs."""
    shape = list(x.shape)
    path, _, kind = name.removeprefix("language_model.").rpartition(".")
    if path not in PACKED:
        value = mx.array(weight(name, shape, salt))
        return value if kind == "A_log" else value.astype(mx.float16)
    if kind == "weight":
        return mx.array(words(name, shape, salt))
    if kind == "signs":
        return mx.where(mx.array(uniform(f"{salt}/{name}", shape[0])) < 0, -1.0, 1.0)
    # Codes from 0 to 3 lie around 1.5.
    u = uniform(f"{salt}/{path}.scales", math.prod(shape)).reshape(shape)
    scales = mx.array(np.float32(1.0 / 16) + u * np.float32(1.0 / 64)).astype(mx.float16)
    return scales if kind == "scales" else scales * -1.5


def build(salt):
    Model, Args = _get_classes(CONFIG)
    model = Model(Args.from_dict(CONFIG))
    shapes = dict(tree_flatten(model.parameters()))
    model.load_weights(list(model.sanitize({k: parameter(k, x, salt) for k, x in shapes.items()}).items()))
    model.eval()
    mx.eval(model.parameters())
    return model, {k: list(x.shape) for k, x in shapes.items()}


def logits(model, inputs, cache=None):
    return model(mx.array([inputs]), cache=cache).astype(mx.float32)


def greedy(model):
    """Tokens, and the smallest gap between the two best logits."""
    cache, tokens, gaps, inputs = make_prompt_cache(model), [], [], PROMPT
    for _ in range(COUNT):
        last = logits(model, inputs, cache)[0, -1]
        second, best = mx.sort(last)[-2:].tolist()
        tokens.append(mx.argmax(last).item())
        gaps.append(best - second)
        inputs = tokens[-1:]
    return tokens, min(gaps)


if __name__ == "__main__":
    model, shapes = build(SALT)
    tokens, gap = greedy(model)
    print(f"  smallest gap {gap:.1e}, {len(set(tokens))} distinct")
    cache = make_prompt_cache(model)
    encode.write("prism.json", {
        "config": CONFIG, "salt": SALT, "shapes": shapes, "prompt": PROMPT, "columns": COLUMNS,
        "prefill": encode.float32(logits(model, PROMPT)[..., ::COLUMNS]),
        "steps": [
            {"inputs": step, "logits": encode.float32(logits(model, step, cache)[..., ::COLUMNS])} for step in STEPS
        ],
        "greedy": tokens,
    })
