"""Checkpoints as transformers 5 saves them: its configuration, its tensors' names and shapes, and its logits.

    python saved.py [NAME ...]

Needs PyTorch beside transformers, so `python test/oracle` leaves it out. Weights are the formula of their names. Some fields
differ from the other fixtures' where mlx-lm, whose logits those have, reads a configuration otherwise than transformers; CHANGED
says which.
"""

import base64
import json
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as TEXT

from architectures import CONFIGS
from weights import weight

FIXTURE = Path(__file__).parent.parent / "fixtures/saved.json"
PROMPT = [7, 201, 42, 99, 13, 250, 128, 64, 5, 9, 77, 31]
SALT = 3

# Rotation of all of a head, where its sizes take the whole of it.
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}

# Model types that are another one's of the fixtures.
FROM = {
    "gemma4_unified": "gemma4", "lfm2_vl": "lfm2-vl", "minimax_m2": "minimax",
    "qwen2_5_vl": "qwen2_vl",
}

# What the configuration has in place of the other fixture's; None takes a field away.
CHANGED = {
    # The width's root is exact in bfloat16, to which mlx-lm rounds it.
    "gemma3": {"hidden_size": 64, "vocab_size": 256},
    "gemma3_text": {"hidden_size": 64},
    # Norms of latent vectors keep their own epsilon.
    "glm4_moe_lite": {"rms_norm_eps": 1e-6},
    # Steps of a state have no bound from below.
    "nemotron_h": {"time_step_min": 1e-6},
    # All tokens are chosen: ties between scores of nothing are broken at random.
    "deepseek_v32": {"index_topk": 32},
    "glm_moe_dsa": {"index_topk": 32},
    # Factors of short contexts are not used.
    "phimoe": {"rope_scaling": None, "original_max_position_embeddings": None},
    # One window for all layers.
    "ministral3": {"layer_types": None, "sliding_window": None},
    "minimax_m3_vl": {"rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}, "rope_theta": None},
    "llama4": {"attn_temperature_tuning": True},
    "llama_bias": {"rope_traditional": None},
    "exaone4": {"sliding_window_pattern": None, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2, "num_hidden_layers": 6},
    "afmoe": {"n_group": 1, "topk_group": 1},
    "gpt_neox": {"hidden_act": "gelu"},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 16},
    "granitemoehybrid_dense": {"mamba_n_heads": 8, "mamba_d_head": 16},
    # The language model's field says tied, as transformers 4 wrote it; the one at the top says not.
    "qwen3_vl": {"tie_word_embeddings": True},
    "qwen3_5": {"tie_word_embeddings": True},
    # No two sizes of an expert are equal, so that its layout can be told.
    "qwen3_vl_moe": {"moe_intermediate_size": 32},
    "gemma4": {"head_dim": 16, "global_head_dim": 32, "pad_token_id": 0},
    "gemma4_unified": {"head_dim": 16, "global_head_dim": 32, "pad_token_id": 0, "enable_moe_block": False},
    "gemma4_text": {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2, "pad_token_id": 0},
}

NAMES = [
    "cohere2", "cohere2_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5", "ernie4_5_moe", "exaone4",
    "exaone_moe", "falcon_h1", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text", "gemma4_unified", "glm", "glm4", "glm4_moe",
    "glm4_moe_lite", "glm_moe_dsa", "gpt_bigcode", "gpt_neox", "gpt_oss", "granite", "granitemoe", "granitemoehybrid",
    "granitemoehybrid_dense", "hunyuan_v1_dense", "jamba", "laguna", "lfm2", "lfm2_moe", "lfm2_vl", "llama", "llama4", "llava", "mellum",
    "mimo_v2_flash", "minimax_m2", "minimax_m3_vl", "ministral3", "mistral3", "mistral4", "mixtral", "nemotron", "nemotron_h",
    "olmo2", "olmo3", "phi", "phimoe", "qwen2", "qwen2_5_vl", "qwen2_moe", "qwen2_vl", "qwen3", "qwen3_5", "qwen3_5_moe", "qwen3_moe",
    "qwen3_next", "qwen3_vl", "qwen3_vl_moe", "seed_oss", "smollm3", "stablelm", "starcoder2",
]

SMALL = {
    "num_hidden_layers": 1, "depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
    "num_key_value_heads": 2, "num_heads": 2, "head_dim": 16, "embed_dim": 32, "mm_hidden_size": 32,
    "num_position_embeddings": 64, "deepstack_visual_indexes": [0], "fullatt_block_indexes": [0],
    "projection_dim": 32, "projector_hidden_size": 64,
}


def configuration(name, folder):
    """The other fixture's configuration as transformers reads it, with a small part for images."""
    fields = json.loads(json.dumps(CONFIGS[FROM.get(name, name)]))
    if name in FROM:
        fields["model_type"] = name
    inner = fields.get("text_config", fields)
    for field, value in CHANGED.get(name, {}).items():
        inner.pop(field, None)
        if value is not None:
            inner[field] = value
    (folder / "config.json").write_text(json.dumps(fields))
    config = AutoConfig.from_pretrained(folder)
    text = getattr(config, "text_config", None) or config
    for part in (config, text):
        part.pad_token_id = inner.get("pad_token_id")
    vision = getattr(config, "vision_config", None)
    for field, value in SMALL.items():
        if hasattr(vision, field):
            setattr(vision, field, value)
    for field in ("out_hidden_size", "text_hidden_size"):
        if hasattr(vision, field):
            setattr(vision, field, text.hidden_size)
    return config, fields


def header(path):
    with open(path, "rb") as file:
        [length] = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))


def saved(name, folder):
    config, fields = configuration(name, folder)
    reads = "text_config" not in fields and fields["model_type"] in TEXT
    kind = AutoModelForCausalLM if reads else AutoModelForImageTextToText
    kind.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tensors = {k: v for k, v in header(folder / "model.safetensors").items() if k != "__metadata__"}
    drawn = {k: np.ascontiguousarray(weight(k, tuple(v["shape"]), SALT), np.float32) for k, v in tensors.items()}
    save_file(drawn, folder / "model.safetensors", metadata={"format": "pt"})
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT])).logits[0].float().numpy()
    other = lambda k: any(part in k for part in ("visual", "vision", "projector", "patch_merge"))
    language = {k: v["shape"] for k, v in sorted(tensors.items()) if not other(k)}
    # One tensor of the part for images, which is to be left out.
    sees = {k: v["shape"] for k, v in [min(filter(lambda kv: other(kv[0]), tensors.items()), key=lambda kv: np.prod(kv[1]["shape"]))]} if any(map(other, tensors)) else {}
    return {
        # As a text: JSON has no word for the infinite numbers in some.
        "config": (folder / "config.json").read_text(),
        "weights": {**language, **sees},
        "logits": base64.b64encode(np.ascontiguousarray(logits[:, ::8], np.float32).tobytes()).decode(),
    }, float(np.abs(logits).max())


if __name__ == "__main__":
    torch.set_num_threads(1)
    names = sys.argv[1:] or NAMES
    cases = json.loads(FIXTURE.read_text())["cases"] if FIXTURE.exists() else {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            cases[name], largest = saved(name, Path(folder))
        print(f"{name}: logits up to {largest:.1f}", flush=True)
    cases = {name: cases[name] for name in sorted(cases) if name in NAMES}
    FIXTURE.write_text(json.dumps({"prompt": PROMPT, "salt": SALT, "columns": 8, "cases": cases}, separators=(",", ":")) + "\n")
