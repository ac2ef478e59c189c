"""The tiny models of the parity fixtures: config.json, the checkpoint's tensor names, and a salt.

The salt only picks one draw of the weights: `models.py --search NAME` looked for one whose greedy choices are far
from a tie and varied.
"""

# The ids of the tiny Phi 3 small that have no text.
UNUSED = [3, 77, 203]

BASE = {
    "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
}

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0],
    "long_factor": [1.0, 1.25, 1.5, 2.0, 3.0, 4.5, 6.0, 8.0],
}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"]


def config(model_type, **changes):
    return {"model_type": model_type, **BASE, **changes}


# A delta layer's heads and their width, and what rotates of attention's heads.
DELTA = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 24,
    "linear_conv_kernel_dim": 4, "head_dim": 32,
}
MROPE = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 10000000.0,
         "partial_rotary_factor": 0.25}


GEMMA4 = {
    "vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 6, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 32, "rms_norm_eps": 1e-6, "sliding_window": 6,
    "max_position_embeddings": 2048, "final_logit_softcapping": 30.0, "tie_word_embeddings": True,
}


def nested(model_type, **changes):
    """A language model within a checkpoint that has other parts too."""
    text = {**BASE, **DELTA, "num_hidden_layers": 4, "rope_parameters": MROPE, **changes}
    del text["rope_theta"]
    return {"model_type": model_type, "text_config": {"model_type": f"{model_type}_text", **text}}


BAILING = {
    "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_shared_experts": 1, "n_group": 2,
    "topk_group": 1, "first_k_dense_replace": 1, "routed_scaling_factor": 2.5, "kv_lora_rank": 32, "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16, "v_head_dim": 32, "tie_word_embeddings": False,
}

# A Granite 4 of two kinds of layers.
GRANITE4 = {
    "logits_scaling": 0.5, "attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 1.2,
    "attention_bias": False, "layer_types": ["mamba", "attention", "mamba"], "mamba_n_heads": 4, "mamba_d_head": 16,
    "mamba_proj_bias": False, "mamba_d_state": 32, "mamba_d_conv": 4, "mamba_n_groups": 1, "mamba_conv_bias": True,
}


def seeing(model_type, **changes):
    """A language model within a checkpoint that also has a vision tower."""
    return {"model_type": model_type, "text_config": {"model_type": f"{model_type}_text", **BASE, **changes}}


SHORT_CONV = {
    "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 2048, "norm_eps": 1e-5, "conv_L_cache": 3, "rope_theta": 10000.0,
}


LLAMA4_YARN = {**YARN, "original_max_position_embeddings": 16, "rope_theta": 10000.0, "beta_fast": 32.0, "beta_slow": 1.0,
               "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5}
DEEPSEEK_YARN = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1,
                 "mscale": 1.0, "mscale_all_dim": 1.0}
LATENT = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 4, "kv_lora_rank": 32, "q_lora_rank": 64, "qk_rope_head_dim": 16, "v_head_dim": 32,
    "qk_nope_head_dim": 32, "moe_layer_freq": 1, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "attention_bias": False,
}
# Experts in one group beside a shared one; the first layer is dense.
GLM_EXPERTS = {
    "moe_intermediate_size": 32, "n_shared_experts": 1, "n_routed_experts": 8, "num_experts_per_tok": 3,
    "norm_topk_prob": True, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.5, "first_k_dense_replace": 1,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid",
}
# A factor on queries that rounds nothing: mlx-lm rounds it, and its products, to bfloat16; we have it in the scores' factor.
MUSE = {
    "num_hidden_layers": 4, "head_dim": 16, "sliding_window": 6, "qk_scale_factor": 4.0,
}

# Factors on queries and latent vectors that round nothing.
LONGCAT = {
    "model_type": "longcat_flash", "attention_method": "MLA", "zero_expert_type": "identity", "hidden_size": 128,
    "ffn_hidden_size": 96, "expert_ffn_hidden_size": 32, "moe_topk": 3, "n_routed_experts": 6, "zero_expert_num": 2,
    "num_layers": 2, "vocab_size": 256, "max_position_embeddings": 2048, "num_attention_heads": 4, "kv_lora_rank": 32,
    "q_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32, "routed_scaling_factor": 2.0,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "mla_scale_q_lora": True, "mla_scale_kv_lora": True,
    "attention_bias": False,
}

CONFIGS = {
    "llama": config("llama", tie_word_embeddings=True),
    "llama_bias": config(
        "llama", tie_word_embeddings=False, attention_bias=True, mlp_bias=True, head_dim=24, rope_traditional=True,
        rope_scaling={"type": "linear", "factor": 2.0},
    ),
    "llama_llama3": config("llama", tie_word_embeddings=False, rope_theta=500000.0, rope_scaling=LLAMA3),
    "llama_sliding": config(
        "llama", tie_word_embeddings=True, num_hidden_layers=5, layer_types=SLIDING, sliding_window=6,
    ),
    "mistral": config("mistral", tie_word_embeddings=False, num_key_value_heads=1, sliding_window=None),
    "qwen3": config("qwen3", tie_word_embeddings=True, head_dim=32),
    "qwen3_yarn": config("qwen3", tie_word_embeddings=False, head_dim=16, rope_scaling=YARN),
    "qwen3_5": nested("qwen3_5", tie_word_embeddings=True, full_attention_interval=4),
    "qwen3_5_moe": nested(
        "qwen3_5_moe", tie_word_embeddings=False, full_attention_interval=2, num_hidden_layers=2, num_experts=8,
        num_experts_per_tok=3, moe_intermediate_size=32, shared_expert_intermediate_size=32,
    ),
    "gemma3_text": config(
        "gemma3_text", hidden_size=32, num_hidden_layers=6, head_dim=32, num_key_value_heads=1, query_pre_attn_scalar=32,
        sliding_window=6, sliding_window_pattern=3, rope_theta=1000000.0, rope_local_base_freq=10000.0,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
    ),
    "gemma3_text_untied": config(
        "gemma3_text", num_hidden_layers=4, head_dim=16, query_pre_attn_scalar=16, sliding_window=16,
        sliding_window_pattern=2,
    ),
    "gemma3": {
        "model_type": "gemma3", "vocab_size": 256, "text_config": {
            "model_type": "gemma3_text", "hidden_size": 32, "num_hidden_layers": 6, "intermediate_size": 128,
            "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 32,
            "rms_norm_eps": 1e-6, "sliding_window": 6, "sliding_window_pattern": 3, "rope_theta": 1000000.0,
            "max_position_embeddings": 2048, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    },
    "gemma3n": {
        "model_type": "gemma3n", "text_config": {
            "model_type": "gemma3n_text", "vocab_size": 256, "vocab_size_per_layer_input": 240, "hidden_size": 32,
            "num_hidden_layers": 6, "intermediate_size": [64] * 6, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 8, "rms_norm_eps": 1e-6, "num_kv_shared_layers": 3, "sliding_window": 6,
            "max_position_embeddings": 2048, "rope_local_base_freq": 10000.0, "rope_theta": 1000000.0,
            "final_logit_softcapping": 30.0, "hidden_size_per_layer_input": 32, "altup_num_inputs": 4,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2, "altup_active_idx": 0,
            "activation_sparsity_pattern": [0.75, 0.5, 0.0, 0.0, 0.0, 0.0], "altup_coef_clip": 1.125,
            "altup_correct_scale": True, "laurel_rank": 32,
        },
    },
    "gemma4_text": {
        "model_type": "gemma4_text", **GEMMA4, "num_kv_shared_layers": 3, "hidden_size_per_layer_input": 32,
        "vocab_size_per_layer_input": 256, "sliding_window_pattern": 3,
    },
    "gemma4": {
        "model_type": "gemma4", "vocab_size": 256, "text_config": {
            "model_type": "gemma4_text", **GEMMA4, "num_hidden_layers": 3, "num_kv_shared_layers": 0, "head_dim": 8,
            "global_head_dim": 16,
            "hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1,
            "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    },
    "llama4": {
        "model_type": "llama4", "text_config": {
            **BASE, "model_type": "llama4_text", "num_hidden_layers": 4, "head_dim": 16, "attention_bias": False,
            "attention_chunk_size": 5, "interleave_moe_layer_step": 2, "intermediate_size": 32,
            "intermediate_size_mlp": 64, "num_experts_per_tok": 1, "num_local_experts": 4, "rms_norm_eps": 1e-6,
            "rope_scaling": LLAMA3, "use_qk_norm": True, "attn_temperature_tuning": 4, "floor_scale": 8,
            "attn_scale": 0.5,
        },
    },
    "llama4_text": config(
        "llama4_text", head_dim=16, intermediate_size_mlp=128, use_qk_norm=True, no_rope_layers=[1, 1, 1],
        tie_word_embeddings=False, rms_norm_eps=1e-6,
    ),
    "minicpm": config(
        "minicpm", dim_model_base=32, scale_depth=1.4, scale_emb=3, tie_word_embeddings=False,
    ),
    "nanbeige": config("nanbeige", num_loops=2, num_hidden_layers=2, head_dim=16, tie_word_embeddings=False),
    "phi3": config("phi3", tie_word_embeddings=False, partial_rotary_factor=0.5),
    "phi3_longrope": config(
        "phi3", tie_word_embeddings=False, rope_scaling=LONGROPE, original_max_position_embeddings=256,
    ),
    "mamba2": {
        "model_type": "mamba2", "num_heads": 4, "head_dim": 16, "vocab_size": 256, "hidden_size": 32,
        "intermediate_size": 64, "state_size": 16, "num_hidden_layers": 3, "layer_norm_epsilon": 1e-5,
        "conv_kernel": 4, "n_groups": 2, "use_bias": False, "use_conv_bias": True, "tie_word_embeddings": False,
        "time_step_limit": [0.0, 100.0], "time_step_rank": "auto",
    },
    "nemotron_h": {
        "model_type": "nemotron_h", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96,
        "max_position_embeddings": 2048, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "attention_bias": False, "mamba_num_heads": 4, "mamba_head_dim": 16, "mamba_proj_bias": False,
        "ssm_state_size": 16, "conv_kernel": 4, "n_groups": 2, "mlp_bias": False, "layer_norm_epsilon": 1e-5,
        "use_bias": False, "use_conv_bias": True, "hybrid_override_pattern": "M-ME*E", "n_routed_experts": 8,
        "num_experts_per_tok": 3, "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 32,
        "moe_latent_size": 32, "n_shared_experts": 1, "n_group": 2, "topk_group": 1, "norm_topk_prob": True,
        "routed_scaling_factor": 2.5, "tie_word_embeddings": False,
    },
    "granitemoe": config(
        "granitemoe", logits_scaling=0.5, attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=1.5,
        attention_bias=False, tie_word_embeddings=True, num_local_experts=6, num_experts_per_tok=2, intermediate_size=32,
    ),
    "granitemoehybrid": config(
        "granitemoehybrid", **GRANITE4, tie_word_embeddings=True, num_local_experts=6, num_experts_per_tok=2,
        shared_intermediate_size=32, intermediate_size=32, position_embedding_type="nope",
    ),
    "granitemoehybrid_dense": config(
        "granitemoehybrid", **GRANITE4, tie_word_embeddings=False, position_embedding_type="rope",
    ),
    "falcon_h1": config(
        "falcon_h1", attention_in_multiplier=1.0, key_multiplier=1.0, head_dim=16, mamba_d_head=16, mamba_n_heads=4,
        mamba_d_ssm=64, mamba_d_state=32, mamba_n_groups=1, mamba_rms_norm=False, embedding_multiplier=3.0,
        lm_head_multiplier=4.0, attention_out_multiplier=1.5, ssm_out_multiplier=1.5, tie_word_embeddings=True,
        ssm_multipliers=[0.7, 1.5, 1.3, 0.9, 0.8], mlp_multipliers=[1.2, 1.4], mamba_proj_bias=False,
    ),
    "mamba": {
        "model_type": "mamba", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "state_size": 16,
        "num_hidden_layers": 2, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 32,
        "tie_word_embeddings": False,
    },
    "falcon_mamba": {
        "model_type": "falcon_mamba", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "state_size": 16,
        "num_hidden_layers": 2, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 32,
        "tie_word_embeddings": False, "mixer_rms_eps": 0.1,
    },
    "jamba": config(
        "jamba", attn_layer_offset=1, attn_layer_period=2, expert_layer_offset=1, expert_layer_period=2, mamba_d_conv=4,
        mamba_d_state=16, mamba_expand=2, mamba_dt_rank=32, num_experts=2, num_experts_per_tok=2, intermediate_size=64,
        tie_word_embeddings=False, mamba_proj_bias=False, mamba_conv_bias=True,
    ),
    "kimi_linear": config(
        "kimi_linear", tie_word_embeddings=False, num_hidden_layers=4, head_dim=32, kv_lora_rank=32, qk_nope_head_dim=32,
        qk_rope_head_dim=16, v_head_dim=32, mla_use_nope=True, model_max_length=2048, num_experts=8,
        num_experts_per_token=3, num_shared_experts=1, moe_intermediate_size=32, first_k_dense_replace=1,
        moe_layer_freq=1, num_expert_group=2, topk_group=1, routed_scaling_factor=2.5,
        linear_attn_config={
            "kda_layers": [1, 2, 4], "full_attn_layers": [3], "num_heads": 2, "head_dim": 32, "short_conv_kernel_size": 4,
        },
    ),
    "kimi_k3": {
        "model_type": "kimi_k3",
        "text_config": {
            "model_type": "kimi_linear", "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 96, "rms_norm_eps": 1e-5,
            "activation_situ_beta": 3.0, "activation_situ_linear_beta": 4.0, "attn_res_block_size": 2, "q_lora_rank": 32,
            "kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
            "mla_use_output_gate": True, "num_experts": 8, "num_experts_per_token": 3, "num_shared_experts": 1,
            "moe_intermediate_size": 32, "first_k_dense_replace": 2, "num_expert_group": 2, "topk_group": 1,
            "routed_scaling_factor": 2.5, "routed_expert_hidden_size": 32, "latent_moe_use_norm": True,
            "linear_attn_config": {
                "kda_layers": [1, 2, 4], "full_attn_layers": [3], "num_heads": 2, "head_dim": 32,
                "short_conv_kernel_size": 4, "gate_lower_bound": -5.0, "use_full_rank_gate": True,
            },
        },
    },
    "rwkv7": {
        "model_type": "rwkv7", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "norm_eps": 1e-5,
        "head_dim": 32, "num_hidden_layers": 3, "a_low_rank_dim": 32, "v_low_rank_dim": 32, "gate_low_rank_dim": 32,
        "decay_low_rank_dim": 32, "tie_word_embeddings": False,
    },
    "laguna": config(
        "laguna", tie_word_embeddings=False, num_hidden_layers=4, head_dim=32, layer_types=["full_attention",
        "sliding_attention", "sliding_attention", "full_attention"], sliding_window=6,
        num_attention_heads_per_layer=[2, 4, 4, 2], mlp_layer_types=["dense", "sparse", "sparse", "dense"],
        rope_parameters={
            "full_attention": {**YARN, "rope_theta": 500000.0, "partial_rotary_factor": 0.5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        num_experts=8, num_experts_per_tok=3, moe_intermediate_size=32, shared_expert_intermediate_size=32,
        moe_routed_scaling_factor=2.5, moe_router_logit_softcapping=3.0,
    ),
    # The window holds all tokens of the fixture: mlx-lm's has one fewer than the model was trained with.
    "mimo_v2_flash": {
        "model_type": "mimo_v2_flash", "num_experts_per_tok": 3, "hybrid_layer_pattern": [0, 1, 1],
        "moe_layer_freq": [0, 1, 1], "add_swa_attention_sink_bias": True, "add_full_attention_sink_bias": False,
        "sliding_window_size": 128, "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128,
        "moe_intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 1,
        "n_shared_experts": None, "n_routed_experts": 8, "routed_scaling_factor": None, "topk_method": "noaux_tc",
        "scoring_func": "sigmoid", "norm_topk_prob": True, "n_group": 1, "topk_group": 1,
        "max_position_embeddings": 2048, "layernorm_epsilon": 1e-5, "rope_theta": 5000000.0, "swa_rope_theta": 10000.0,
        "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "head_dim": 32, "v_head_dim": 16, "swa_head_dim": 32,
        "swa_v_head_dim": 16, "partial_rotary_factor": 0.334, "attention_value_scale": 0.707,
    },
    "bailing_moe_v3": config(
        "bailing_moe_v3", num_hidden_layers=4, head_dim=32, num_attention_heads=2, **BAILING, q_lora_rank=32,
        moe_shared_expert_intermediate_size=32, layer_group_size=2, short_conv_kernel_size=4,
    ),
    "bailing_hybrid": config(
        "bailing_hybrid", num_hidden_layers=4, head_dim=32, num_attention_heads=2, **BAILING,
        layer_group_size=2, group_norm_size=2, partial_rotary_factor=0.5,
    ),
    "mixtral": config(
        "mixtral", num_local_experts=4, num_experts_per_tok=2, tie_word_embeddings=False, intermediate_size=96,
    ),
    "gpt_oss": {
        "model_type": "gpt_oss", "num_hidden_layers": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
        "vocab_size": 256, "rms_norm_eps": 1e-5, "hidden_size": 64, "intermediate_size": 32, "head_dim": 16,
        "num_attention_heads": 8, "num_key_value_heads": 2, "sliding_window": 6, "rope_theta": 150000.0,
        "rope_scaling": {
            "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
            "original_max_position_embeddings": 64,
        },
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "deepseek_v3": {
        "model_type": "deepseek_v3", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96,
        "moe_intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
        "n_shared_experts": 1, "n_routed_experts": 8, "routed_scaling_factor": 2.5, "kv_lora_rank": 32,
        "q_lora_rank": 64, "qk_rope_head_dim": 16, "v_head_dim": 32, "qk_nope_head_dim": 32, "topk_method": "noaux_tc",
        "scoring_func": "sigmoid", "norm_topk_prob": True, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3,
        "moe_layer_freq": 1, "first_k_dense_replace": 1, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "attention_bias": False,
        "rope_scaling": {
            "type": "yarn", "factor": 40, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1,
            "mscale": 1.0, "mscale_all_dim": 1.0,
        },
    },
    "smollm3": config("smollm3", tie_word_embeddings=True, num_hidden_layers=4),
    "gemma": config("gemma", head_dim=16, hidden_size=32),
    "gemma2": config(
        "gemma2", head_dim=16, hidden_size=32, query_pre_attn_scalar=16, attn_logit_softcapping=20.0,
        final_logit_softcapping=12.0,
    ),
    "granite": config(
        "granite", logits_scaling=0.5, attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=1.5,
        attention_bias=False, mlp_bias=False, tie_word_embeddings=True,
    ),
    "seed_oss": config("seed_oss", head_dim=24, attention_bias=True, attention_out_bias=False, tie_word_embeddings=False),
    "ernie4_5": config("ernie4_5", head_dim=16, use_bias=True, tie_word_embeddings=True),
    "olmo2": config("olmo2", tie_word_embeddings=False),
    "exaone4": config(
        "exaone4", head_dim=16, num_hidden_layers=4, tie_word_embeddings=True, sliding_window=6,
        sliding_window_pattern="LLG", rope_scaling=LLAMA3,
    ),
    "cohere2": {
        "model_type": "cohere2", "hidden_size": 64, "head_dim": 16, "num_hidden_layers": 4, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 10000.0, "vocab_size": 256,
        "layer_norm_eps": 1e-5, "logit_scale": 0.5, "sliding_window": 6, "sliding_window_pattern": 2,
    },
    "hunyuan_v1_dense": config(
        "hunyuan_v1_dense", head_dim=16, rope_scaling={"alpha": 100.0, "factor": 1.0, "type": "dynamic"},
    ),
    "qwen3_moe": config(
        "qwen3_moe", head_dim=16, num_experts=6, num_experts_per_tok=2, decoder_sparse_step=1, mlp_only_layers=[1],
        moe_intermediate_size=32, norm_topk_prob=True, tie_word_embeddings=True,
    ),
    "qwen2": config("qwen2", tie_word_embeddings=True),
    "qwen3_next": config(
        "qwen3_next", **DELTA, num_hidden_layers=3, full_attention_interval=2, partial_rotary_factor=0.25, num_experts=8,
        num_experts_per_tok=3, decoder_sparse_step=1, mlp_only_layers=[0], moe_intermediate_size=32,
        shared_expert_intermediate_size=32, norm_topk_prob=True, tie_word_embeddings=False,
    ),
    "qwen3_vl": seeing(
        "qwen3_vl", head_dim=32, tie_word_embeddings=True,
        rope_scaling={"rope_type": "default", "mrope_section": [8, 4, 4], "mrope_interleaved": True},
    ),
    "qwen3_vl_moe": seeing(
        "qwen3_vl_moe", head_dim=16, num_experts=6, num_experts_per_tok=2, decoder_sparse_step=1, mlp_only_layers=[],
        moe_intermediate_size=32, norm_topk_prob=True, tie_word_embeddings=False,
    ),
    "qwen2_moe": config(
        "qwen2_moe", num_experts=6, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=64,
        tie_word_embeddings=False,
    ),
    "qwen2_vl": seeing("qwen2_vl", tie_word_embeddings=True, rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]}),
    "lfm2": {
        **SHORT_CONV, "model_type": "lfm2", "block_dim": 64, "block_ff_dim": 192, "block_multiple_of": 32,
        "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": True, "conv_bias": True,
        "full_attn_idxs": [1],
    },
    "lfm2_moe": {
        **SHORT_CONV, "model_type": "lfm2_moe", "intermediate_size": 96, "moe_intermediate_size": 32, "num_experts": 6,
        "num_experts_per_tok": 2, "norm_topk_prob": True, "use_expert_bias": True, "num_dense_layers": 1,
        "conv_bias": False, "layer_types": ["conv", "full_attention", "conv"], "routed_scaling_factor": 1.5,
    },
    "lfm2-vl": {"model_type": "lfm2-vl", "text_config": {
        **SHORT_CONV, "model_type": "lfm2", "block_dim": 64, "intermediate_size": 128, "block_multiple_of": 32,
        "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False, "conv_bias": False,
        "layer_types": ["conv", "conv", "full_attention"],
    }},
    "olmo3": config("olmo3", num_hidden_layers=4, sliding_window=6, rope_scaling=YARN, tie_word_embeddings=False),
    "mimo": config("mimo", num_nextn_predict_layers=1, tie_word_embeddings=False),
    "phimoe": config(
        "phimoe", num_local_experts=4, num_experts_per_tok=2, intermediate_size=64, router_jitter_noise=0.3,
        original_max_position_embeddings=256, rope_scaling={**LONGROPE, "short_mscale": 1.1, "long_mscale": 1.2},
    ),
    "ernie4_5_moe": config(
        "ernie4_5_moe", head_dim=16, use_bias=False, tie_word_embeddings=True, moe_num_experts=6, moe_k=2,
        moe_intermediate_size=32, moe_num_shared_experts=2, moe_layer_start_index=1,
    ),
    "ministral3": config(
        "ministral3", head_dim=16, num_hidden_layers=4, tie_word_embeddings=False, rope_parameters=LLAMA4_YARN,
        sliding_window=6, layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    "mistral3": {
        "model_type": "mistral3",
        "text_config": config("ministral3", head_dim=16, tie_word_embeddings=True, rope_parameters=LLAMA4_YARN),
    },
    "llava": {"model_type": "llava", "text_config": config("mistral", head_dim=24)},
    "glm4_moe": config(
        "glm4_moe", head_dim=16, tie_word_embeddings=False, attention_bias=True, use_qk_norm=True, rope_scaling=None,
        partial_rotary_factor=0.5, **GLM_EXPERTS,
    ),
    "glm4_moe_lite": {
        "model_type": "glm4_moe_lite", **LATENT, **GLM_EXPERTS, "rms_norm_eps": 1e-3, "rope_theta": 1000000.0,
    },
    "kimi_k25": {
        "model_type": "kimi_k25",
        "text_config": {
            "model_type": "kimi_k2", **LATENT, **GLM_EXPERTS, "q_lora_rank": None, "num_hidden_layers": 2,
            "rope_scaling": DEEPSEEK_YARN,
        },
    },
    "minimax": config(
        "minimax", head_dim=16, rotary_dim=8, num_local_experts=6, num_experts_per_tok=2, intermediate_size=32,
        shared_intermediate_size=0, use_qk_norm=True, tie_word_embeddings=False,
    ),
    "mistral4": {
        "model_type": "mistral4", **LATENT, **GLM_EXPERTS, "n_group": 2, "first_k_dense_replace": 0, "scoring_func": "softmax",
        "rope_parameters": {**LLAMA4_YARN, "rope_theta": 10000.0}, "tie_word_embeddings": False,
    },
    "deepseek_v32": {
        "model_type": "deepseek_v32", **LATENT, **GLM_EXPERTS, "rope_scaling": DEEPSEEK_YARN, "index_head_dim": 32,
        "index_n_heads": 4, "index_topk": 6,
    },
    "glm_moe_dsa": {
        "model_type": "glm_moe_dsa", **LATENT, **GLM_EXPERTS, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "index_head_dim": 32, "index_n_heads": 2, "index_topk": 7, "indexer_rope_interleave": True,
    },
    "minimax_m3_vl": {
        "model_type": "minimax_m3_vl",
        "text_config": {
            **BASE, "num_hidden_layers": 4, "intermediate_size": 32, "dense_intermediate_size": 96,
            "shared_intermediate_size": 32, "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 16,
            "rotary_dim": 8, "moe_layer_freq": [0, 1, 1, 1],
            "sparse_attention_config": {
                "sparse_num_index_heads": 2, "sparse_index_dim": 16, "sparse_block_size": 3, "sparse_topk_blocks": 2,
                "sparse_local_block": 1, "sparse_attention_freq": [0, 1, 0, 1],
            },
        },
    },
    "glm4": config("glm4", head_dim=16, attention_bias=True, partial_rotary_factor=0.5),
    "starcoder2": {
        "model_type": "starcoder2", "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "norm_epsilon": 1e-5, "vocab_size": 256, "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    "stablelm": config(
        "stablelm", use_qkv_bias=True, partial_rotary_factor=0.5, layer_norm_eps=1e-5, qk_layernorm=True,
    ),
    "stablelm_parallel": config(
        "stablelm", use_qkv_bias=False, partial_rotary_factor=0.25, layer_norm_eps=1e-5, use_parallel_residual=True,
    ),
    "phi": config("phi", partial_rotary_factor=0.5, layer_norm_eps=1e-5),
    "gpt2": {
        "model_type": "gpt2", "n_ctx": 512, "n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 512,
        "layer_norm_epsilon": 1e-5, "vocab_size": 256,
    },
    "gpt_bigcode": {
        "model_type": "gpt_bigcode", "n_embd": 64, "n_layer": 3, "n_inner": 128, "n_head": 4, "n_positions": 512,
        "layer_norm_epsilon": 1e-5, "vocab_size": 256,
    },
    "gpt_neox": config("gpt_neox", layer_norm_eps=1e-5, rotary_emb_base=10000, rotary_pct=0.5, intermediate_size=256),
    "gptj": {
        "model_type": "gptj", "n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 512, "layer_norm_epsilon": 1e-5,
        "vocab_size": 256, "rotary_dim": 8,
    },
    "cohere": config("cohere", layer_norm_eps=1e-5, logit_scale=0.5, use_qk_norm=True),
    "internlm2": config("internlm2", bias=True, tie_word_embeddings=False),
    "internlm3": config("internlm3", bias=True, qkv_bias=True, tie_word_embeddings=False),
    "exaone": {
        "model_type": "exaone", "hidden_size": 64, "num_layers": 3, "intermediate_size": 128, "num_attention_heads": 4,
        "vocab_size": 256, "rope_theta": 10000.0, "layer_norm_epsilon": 1e-5, "num_key_value_heads": 2,
        "max_position_embeddings": 2048, "tie_word_embeddings": False, "rope_scaling": LLAMA3,
    },
    "glm": config("glm", head_dim=16, attention_bias=True, tie_word_embeddings=False),
    "helium": config("helium", head_dim=16, attention_bias=False, mlp_bias=False, tie_word_embeddings=False),
    "qwen": {
        "model_type": "qwen", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3, "kv_channels": 16,
        "layer_norm_epsilon": 1e-6, "intermediate_size": 256, "vocab_size": 256, "no_bias": True,
    },
    "nemotron": config(
        "nemotron", hidden_act="relu2", norm_eps=1e-5, rope_scaling={"type": "linear", "factor": 2.0},
        partial_rotary_factor=0.5,
    ),
    "apertus": config(
        "apertus", mlp_bias=False, attention_bias=False, post_norm=False, qk_norm=True, tie_word_embeddings=False,
    ),
    "deepseek": config(
        "deepseek", moe_intermediate_size=32, n_shared_experts=1, n_routed_experts=6, num_experts_per_tok=2,
        moe_layer_freq=1, first_k_dense_replace=1,
    ),
    "olmoe": config(
        "olmoe", num_experts=6, num_experts_per_tok=2, norm_topk_prob=False, intermediate_size=32,
        tie_word_embeddings=False,
    ),
    "dots1": config(
        "dots1", first_k_dense_replace=1, moe_intermediate_size=32, n_routed_experts=8, n_shared_experts=1,
        norm_topk_prob=True, num_experts_per_tok=3, routed_scaling_factor=2.5, n_group=2, topk_group=1,
        scoring_func="noaux_tc",
    ),
    "minicpm3": {
        "model_type": "minicpm3", **LATENT, "dim_model_base": 32, "q_lora_rank": 32, "scale_depth": 1.4,
        "scale_emb": 3, "v_head_dim": 16, "rope_theta": 10000.0, "rope_scaling": {
            "type": "longrope", "original_max_position_embeddings": 256,
            "short_factor": [1.0, 1.0, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0],
            "long_factor": [1.0, 1.25, 1.5, 2.0, 3.0, 4.5, 6.0, 8.0],
        },
    },
    "youtu_llm": {
        "model_type": "youtu_llm", **LATENT, "rope_theta": 10000.0, "tie_word_embeddings": False,
    },
    "kimi_vl": {
        "model_type": "kimi_vl", "text_config": {
            "model_type": "deepseek_v3", **LATENT, **GLM_EXPERTS, "q_lora_rank": None, "num_hidden_layers": 2,
            "rope_scaling": DEEPSEEK_YARN,
        },
    },
    "pixtral": {"model_type": "pixtral", "text_config": config("mistral", head_dim=24)},
    "solar_open": config(
        "solar_open", head_dim=16, tie_word_embeddings=False, partial_rotary_factor=1.0, **GLM_EXPERTS,
    ),
    "telechat3": config("telechat3", attention_bias=False, rope_scaling={**YARN, "rope_type": "telechat3-yarn"}),
    "lille-130m": {
        "model_type": "lille-130m", "block_size": 512, "layer_norm_eps": 1e-5, "n_embd": 96, "n_head": 4, "n_kv_heads": 2,
        "n_layer": 3, "rope_theta": 10000.0, "vocab_size": 256,
    },
    "nanochat": {
        "model_type": "nanochat", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 256, "intermediate_size": 128, "rope_theta": 10000.0,
    },
    "exaone_moe": config(
        "exaone_moe", num_hidden_layers=4, head_dim=16, moe_intermediate_size=32, num_experts=8, num_experts_per_tok=3,
        num_shared_experts=1, sliding_window=6, layer_types=["sliding_attention", "full_attention"] * 2,
        is_moe_layer=[False, True, True, True], n_group=2, topk_group=1,
    ),
    "mellum": config(
        "mellum", num_hidden_layers=4, head_dim=16, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=32,
        norm_topk_prob=True, sliding_window=6, layer_types=["sliding_attention", "full_attention"] * 2,
        tie_word_embeddings=False, rope_parameters={
            "full_attention": {**YARN, "rope_theta": 500000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "Klear": config(
        "Klear", attention_bias=False, mlp_only_layers=[0], num_experts=6, num_experts_per_tok=2, decoder_sparse_step=1,
        n_shared_experts=1, moe_intermediate_size=32, norm_topk_prob=True,
    ),
    "bailing_moe": config(
        "bailing_moe", moe_intermediate_size=32, num_experts=8, num_shared_experts=1, norm_topk_prob=True,
        num_experts_per_tok=3, first_k_dense_replace=1, use_qk_norm=True, partial_rotary_factor=0.5,
        moe_router_enable_expert_bias=True, routed_scaling_factor=2.5, score_function="sigmoid", n_group=2, topk_group=1,
    ),
    "afmoe": config(
        "afmoe", num_hidden_layers=4, head_dim=16, layer_types=["sliding_attention", "full_attention"] * 2,
        moe_intermediate_size=32, num_experts=8, num_experts_per_tok=3, num_dense_layers=1, n_group=2, topk_group=1,
        sliding_window=6, mup_enabled=True,
    ),
    "nemotron-nas": config(
        "nemotron-nas", num_hidden_layers=4, rope_scaling=LLAMA3, block_configs=[
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 2.0}},
            {"attention": {"no_op": True}, "ffn": {"ffn_mult": 4.5}},
            {"attention": {"n_heads_in_group": 4}, "ffn": {"no_op": True}},
            {"attention": {"n_heads_in_group": 2}, "ffn": {"replace_with_linear": True}},
        ],
    ),
    "openelm": {
        "model_type": "openelm", "head_dim": 16, "num_transformer_layers": 3, "model_dim": 64, "vocab_size": 256,
        "ffn_dim_divisor": 32, "num_query_heads": [4, 6, 4], "num_kv_heads": [2, 3, 4], "ffn_multipliers": [1.0, 2.0, 2.5],
        "share_input_output_layers": False,
    },
    "deepseek_v2": {
        "model_type": "deepseek_v2", **LATENT, **GLM_EXPERTS, "scoring_func": "softmax", "topk_method": "group_limited_greedy", "n_group": 4,
        "topk_group": 2, "norm_topk_prob": False, "rope_scaling": DEEPSEEK_YARN,
    },
    "deepseek_v2_lite": {
        "model_type": "deepseek_v2", **LATENT, **GLM_EXPERTS, "scoring_func": "softmax", "topk_method": "greedy", "q_lora_rank": None, "norm_topk_prob": False,
        "num_hidden_layers": 2, "rope_scaling": DEEPSEEK_YARN,
    },
    "step3p5": {
        "model_type": "step3p5", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 256, "num_attention_heads": 4,
        "num_attention_groups": 2, "head_dim": 16, "intermediate_size": 96, "rope_theta": [1e6, 1e4, 1e4, 1e6],
        "sliding_window": 6, "layer_types": [SLIDING[1], SLIDING[0], SLIDING[0], SLIDING[1]],
        "attention_other_setting": {"num_attention_heads": 6, "num_attention_groups": 2},
        "partial_rotary_factors": [0.5, 1.0, 1.0, 0.5], "rope_scaling": LLAMA3, "yarn_only_types": ["full_attention"],
        "moe_num_experts": 6, "moe_top_k": 2, "moe_intermediate_size": 32, "share_expert_dim": 32, "moe_layers_enum": "1,2,3",
        "swiglu_limits": [0, 0, 0, 0.5], "swiglu_limits_shared": [0, 0, 0.5, 0],
    },
    "hf_olmo": {
        "model_type": "hf_olmo", "d_model": 64, "n_layers": 3, "n_heads": 4, "mlp_hidden_size": 256, "vocab_size": 250,
        "embedding_size": 256, "rope_theta": 10000.0, "weight_tying": False,
    },
    "olmo": config("olmo", num_key_value_heads=4, tie_word_embeddings=False),
    "olmo_hybrid": config(
        "olmo_hybrid", num_hidden_layers=4, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16,
        linear_value_head_dim=24, linear_conv_kernel_dim=4, linear_allow_neg_eigval=True, tie_word_embeddings=False,
        attention_bias=False,
    ),
    "phi3small": {
        "model_type": "phi3small", "hidden_size": 64, "dense_attention_every_n_layers": 2, "ff_intermediate_size": 64,
        "gegelu_limit": 2.0, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "layer_norm_epsilon": 1e-5, "vocab_size": 256, "mup_attn_multiplier": 2.0, "mup_embedding_multiplier": 2.0,
        "mup_width_multiplier": 0.5, "rope_embedding_base": 10000.0, "rope_position_scale": 0.5, "dummy_token_indices": UNUSED,
        "blocksparse_block_size": 4, "blocksparse_num_local_blocks": 2, "blocksparse_vert_stride": 3,
    },
    "phixtral": {
        "model_type": "phixtral", "num_vocab": 256, "model_dim": 64, "num_heads": 4, "num_layers": 3, "rotary_dim": 8,
        "num_experts_per_tok": 2, "num_local_experts": 4,
    },
    "dbrx": {
        "model_type": "dbrx", "vocab_size": 256, "d_model": 64, "n_layers": 3, "n_heads": 4,
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 6, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 2.0, "rope_theta": 10000.0},
    },
    "hunyuan": config(
        "hunyuan", num_hidden_layers=4, attention_bias=False, moe_topk=[2, 1, 2, 3], num_experts=6, num_shared_expert=1,
        use_mixed_mlp_moe=True, use_qk_norm=True, use_cla=True, cla_share_factor=2, moe_intermediate_size=32,
        rope_scaling={"alpha": 1000.0, "factor": 1.0, "type": "dynamic"}, tie_word_embeddings=True,
    ),
    # One of the family without experts, whose checkpoints have projections as one.
    "hunyuan_joint": config(
        "hunyuan", attention_bias=False, moe_topk=1, num_experts=1, num_shared_expert=1, use_mixed_mlp_moe=False,
        use_qk_norm=False, use_cla=False, cla_share_factor=2,
        rope_scaling={"alpha": 50.0, "factor": 1.0, "type": "dynamic"}, tie_word_embeddings=True,
    ),
    "plamo": {
        "model_type": "plamo", "hidden_size": 96, "num_hidden_layers": 3, "intermediate_size": 128,
        "num_attention_heads": 6, "rms_norm_eps": 1e-6, "vocab_size": 256, "n_shared_head": 3,
    },
    "plamo2": {
        "model_type": "plamo2", "hidden_size": 64, "num_hidden_layers": 4, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size_per_head": 16,
        "attention_window_size": 6, "full_attention_idx": [3], "mamba_d_state": 32, "mamba_d_conv": 4,
        "mamba_num_heads": 4, "mamba_step": 2, "intermediate_size": 128, "vocab_size": 256,
    },
    "plamo3": {
        "model_type": "plamo3", "hidden_size": 64, "num_hidden_layers": 4, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "window_size": 6,
        "sliding_window_pattern": 2, "rope_theta": 1000000.0, "rope_local_theta": 10000.0, "intermediate_size": 128,
        "vocab_size": 256,
    },
    "talkie": {
        "model_type": "talkie", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 16,
        "intermediate_size": 128, "vocab_size": 256, "rope_theta": 10000.0,
    },
    "gear": config(
        "gear", num_hidden_layers=4, head_dim=16, sliding_window=6, conv_L_cache=3, final_logit_softcapping=30.0,
        attn_logit_softcapping=8.0, rope_scaling={"type": "linear", "factor": 2.0}, tie_word_embeddings=False,
        layer_types=["conv_mixer", "sliding_attention", "full_attention", "conv_mixer"],
    ),
    "muse_glimmer": seeing(
        "muse_glimmer", **MUSE, output_multiplier=2.0, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
    # No head has whole blocks of those that are rounded: rounding has no slope. What it computes is held in rounding.json.
    "deepseek_v41": {
        "model_type": "deepseek_v41", "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 6,
        "num_attention_heads": 4, "head_dim": 24, "q_lora_rank": 32, "qk_rope_head_dim": 8, "o_groups": 2,
        "o_lora_rank": 32, "moe_intermediate_size": 32, "n_routed_experts": 6, "num_experts_per_tok": 2,
        "rms_norm_eps": 1e-6, "sliding_window": 6, "compress_ratios": [3, 2, 2, 2, 2, 0],
        "kv_source_layer_ids": [0, 1, 3], "index_source_layer_ids": [0, 1, 2, 3], "candidate_source_layer_id": 1,
        "candidate_topk_blocks": 3, "candidate_block_size": 2, "index_n_heads": 4, "index_head_dim": 24, "index_topk": 3,
        "rope_scaling": {"factor": 16, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1},
        "hc_mult": 2, "hc_sinkhorn_iters": 4,
    },
    "muse_spark": {
        "model_type": "muse_spark",
        "text_config": {
            "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_hidden_layers": 4,
            "vocab_size": 256, "rms_norm_eps": 1e-5, "post_norm_eps": 1e-8, "qk_scale_factor": 4.0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "layer_rope_theta": [1e4, 1e4, 1e4, 0],
            "layer_types": ["sliding_attention"] * 3 + ["full_attention"], "sliding_window": 6,
            "final_logit_softcapping": 20.0, "output_multiplier": 2.0, "num_local_experts": 6, "num_experts_per_tok": 2,
            "moe_hidden_size": 32, "moe_intermediate_size": 32, "routed_scaling_factor": 1.5,
        },
    },
    "muse_glimmer_tied": config(
        "muse_glimmer", **MUSE, output_multiplier=1.0, tie_word_embeddings=True,
        layer_types=["sliding_attention", "full_attention"] * 2, layer_rope_theta=[10000.0, 0, 0, 10000.0],
    ),
    "spark2_5": {
        "model_type": "spark2_5", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 256, "sliding_window": 6,
        "attention_bias": True, "tie_word_embeddings": False, "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "default", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5},
        },
    },
    "afm7": {
        "model_type": "afm7", "vocab_size": 256, "hidden_dim": 64, "num_layers": 4, "num_kv_reuse_layers": 2,
        "num_heads": 4, "num_kv_heads": 2, "hidden_dim_scale_factor": 1.5,
    },
    "baichuan_m1": config(
        "baichuan_m1", num_hidden_layers=4, sliding_window=6, sliding_window_layers=[1, 3], conv_window=2,
        num_swa_attention_heads=8, num_swa_key_value_heads=4,
    ),
    "bailing_moe_linear": config(
        "bailing_moe_linear", num_hidden_layers=4, head_dim=32, num_experts=8, num_experts_per_tok=2,
        moe_intermediate_size=32, num_shared_experts=1, norm_topk_prob=True, first_k_dense_replace=1, layer_group_size=3,
        group_norm_size=2, use_qk_norm=True, n_group=2, topk_group=1, moe_router_enable_expert_bias=True,
        score_function="sigmoid", routed_scaling_factor=2.0, partial_rotary_factor=0.5,
    ),
    "iquestloopcoder": config("iquestloopcoder", head_dim=16, loop_window_size=6, attention_bias=True),
    "recurrent_gemma": config(
        "recurrent_gemma", num_hidden_layers=5, attention_bias=False, conv1d_width=4, intermediate_size=192,
        logits_soft_cap=30.0, num_key_value_heads=1, attention_window_size=6,
        block_types=["recurrent", "recurrent", "attention"],
    ),
    "longcat_flash": LONGCAT,
    "longcat_flash_ngram": {
        **LONGCAT, "model_type": "longcat_flash_ngram", "ngram_vocab_size_ratio": 3, "emb_neighbor_num": 3,
        "emb_split_num": 2,
    },
    "k2_horizon": config(
        "k2_horizon", head_dim=16, tie_word_embeddings=False, rope_theta=None,
        rope_parameters={**YARN, "rope_theta": 10000000.0},
    ),
    "cohere2_moe": config(
        "cohere2_moe", num_hidden_layers=4, head_dim=16, layer_norm_eps=1e-5, logit_scale=0.5, sliding_window=6,
        layer_types=["full_attention", "sliding_attention", "full_attention", "sliding_attention"], num_experts=8,
        num_experts_per_tok=3, num_shared_experts=1, expert_selection_fn="sigmoid", first_k_dense_replace=1,
        intermediate_size=32, prefix_dense_intermediate_size=96,
    ),
    "hy_v4": {
        **{name: value for name, value in LATENT.items() if name != "num_key_value_heads"}, "model_type": "hy_v4",
        "num_hidden_layers": 4, "moe_intermediate_size": 32, "n_shared_experts": 1, "n_routed_experts": 8,
        "num_experts_per_tok": 3, "routed_scaling_factor": 1.5, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
        "index_head_dim": 32, "index_n_heads": 4, "index_topk": 6, "indexer_types": ["full", "full", "shared", "shared"],
        "hc_mult": 2,
    },
    "deepseek_v4": {
        "model_type": "deepseek_v4", "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 1, "head_dim": 32, "q_lora_rank": 32, "qk_rope_head_dim": 16, "o_groups": 2, "o_lora_rank": 32,
        "moe_intermediate_size": 32, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2,
        "num_hash_layers": 1, "rms_norm_eps": 1e-6, "sliding_window": 6, "index_n_heads": 4, "index_head_dim": 32,
        "index_topk": 2, "rope_theta": 10000.0, "compress_rope_theta": 160000.0, "max_position_embeddings": 2048,
        "rope_scaling": {
            "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1,
        },
        "layer_types": [
            "sliding_attention", "heavily_compressed_attention", "compressed_sparse_attention",
            "compressed_sparse_attention",
        ],
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 6},
        "hc_mult": 2, "hc_sinkhorn_iters": 3,
    },
    "qwen4_exp": {
        "model_type": "qwen4_exp", "text_config": {
            "model_type": "qwen4_exp_text", "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-6,
            "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
            "linear_conv_kernel_dim": 4, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32, "max_position_embeddings": 2048, "tie_word_embeddings": False,
            "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
            "hc_count": 2, "hc_lowrank": 32, "ple_layer_ids": [1, 3], "ple_embed_dim": 128, "ple_conv_kernel_size": 4,
            "ngram_size": 3, "heads_per_ngram": 2, "ngram_vocab_size_base": 50, "make_ngram_vocab_size_divisible_by": 8,
            "split_ngram_parts": 2, "seed": 1234, "eos_token_id": 13, "indexer_n_heads": 8, "indexer_kv_heads": 1,
            "indexer_head_dim": 32, "indexer_budget": 4, "indexer_compress_ratio": 2, "output_gate_type": "sigmoid",
            "rope_parameters": {
                "type": "default", "mrope_section": [3, 3, 2], "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
            },
        },
    },
    "glm5_next": {
        "model_type": "glm5_next", "text_config": {
            "model_type": "glm5_next_text", "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 4,
            "intermediate_size": 96, "moe_intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4,
            "n_shared_experts": 1, "n_routed_experts": 8, "num_experts_per_tok": 3, "routed_scaling_factor": 1.5,
            "kv_lora_rank": 32, "q_lora_rank": 64, "qk_nope_head_dim": 32, "v_head_dim": 32, "rms_norm_eps": 1e-5,
            "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "index_topk": 4, "index_kpool": 2,
            "index_head_dim": 32, "index_n_heads": 4, "linear_head_dim": 32, "linear_num_heads": 2, "swiglu_limit": 2.0,
            "hc_mult": 2, "hc_sinkhorn_iters": 3, "tie_word_embeddings": False,
        },
    },
}

CONFIGS["mimo_v2"] = {**CONFIGS["mimo_v2_flash"], "model_type": "mimo_v2"}
CONFIGS["step3p7"] = {
    "model_type": "step3p7", "text_config": {
        **CONFIGS["step3p5"], "use_head_wise_attn_gate": True, "moe_router_scaling_factor": 1.5, "rms_norm_eps": 1e-5,
    },
}

SALTS = {
    "llama": 20, "llama_bias": 7, "llama_llama3": 4, "llama_sliding": 1, "mistral": 4, "qwen3": 40, "qwen3_yarn": 38,
    "gemma3_text": 11, "gemma3_text_untied": 0, "phi3": 0, "phi3_longrope": 4, "mamba2": 9, "mixtral": 2, "gpt_oss": 49, "deepseek_v3": 5, "qwen2": 2,
    "smollm3": 1, "gemma": 0, "seed_oss": 0, "ernie4_5": 0, "olmo2": 5, "exaone4": 9, "cohere2": 12,
    "hunyuan_v1_dense": 0, "qwen3_moe": 6, "granite": 0, "gemma2": 52,
    "qwen3_5": 3, "qwen3_5_moe": 3, "nemotron_h": 0, "granitemoe": 1, "granitemoehybrid": 7, "granitemoehybrid_dense": 11,
    "falcon_h1": 5, "mamba": 13, "falcon_mamba": 2, "jamba": 5, "kimi_linear": 14, "rwkv7": 262,
    "laguna": 2, "mimo_v2_flash": 0, "bailing_moe_v3": 6, "bailing_hybrid": 11,
    "qwen3_next": 3, "qwen3_vl": 5, "qwen3_vl_moe": 2, "qwen2_moe": 0, "qwen2_vl": 1,
    "lfm2": 2, "lfm2_moe": 0, "lfm2-vl": 0, "olmo3": 6, "mimo": 3, "phimoe": 5, "ernie4_5_moe": 1,
    "ministral3": 5, "mistral3": 2, "llava": 0, "glm4_moe": 1, "glm4_moe_lite": 24, "kimi_k25": 0, "minimax": 10,
    "mistral4": 3, "deepseek_v32": 52, "glm_moe_dsa": 37, "minimax_m3_vl": 0, "glm4": 3, "deepseek_v2": 25,
    "deepseek_v2_lite": 0, "step3p5": 1,
    "gemma3": 11,
    "gemma4_text": 4,
    "gemma4": 28,
    "gemma3n": 10,
    "llama4": 23,
    "llama4_text": 20,
    "nanbeige": 14,
    "minicpm": 8,
    "muse_glimmer": 27,
    "muse_glimmer_tied": 2,
    "muse_spark": 11,
    "deepseek_v41": 10,
    "cohere": 10,
    "internlm2": 20,
    "internlm3": 0,
    "glm": 13,
    "helium": 2,
    "nemotron": 22,
    "stablelm": 1000,
    "stablelm_parallel": 1006,
    "phi": 1006,
    "gpt_bigcode": 1002,
    "starcoder2": 1008,
    "gpt_neox": 1002,
    "gptj": 1010,
    "exaone": 1009,
    "apertus": 1005,
    "gpt2": 1013,
    "olmoe": 1016,
    "deepseek": 1000,
    "dots1": 1009,
    "minicpm3": 1011,
    "youtu_llm": 1007,
    "pixtral": 1001,
    "telechat3": 1000,
    "lille-130m": 1000,
    "qwen": 1011,
    "exaone_moe": 1001,
    "mellum": 1013,
    "Klear": 1004,
    "solar_open": 1016,
    "kimi_vl": 1020,
    "bailing_moe": 1008,
    "nanochat": 1045,
    "afmoe": 1001,
    "nemotron-nas": 1004,
    "openelm": 1013,
    "kimi_k3": 3,
    "spark2_5": 1006,
    "baichuan_m1": 1009,
    "bailing_moe_linear": 1003,
    "iquestloopcoder": 1006,
    "recurrent_gemma": 1006,
    "longcat_flash": 1020,
    "longcat_flash_ngram": 1002,
    "afm7": 1014,
    "k2_horizon": 1001,
    "cohere2_moe": 1021,
    "hf_olmo": 1010,
    "dbrx": 1004,
    "talkie": 1010,
    "plamo3": 1002,
    "olmo_hybrid": 1001,
    "plamo2": 1008,
    "hunyuan_joint": 1006,
    "plamo": 1000,
    "gear": 1010,
    "phi3small": 1002,
    "olmo": 1009,
    "phixtral": 1001,
    "hunyuan": 1002,
    "mimo_v2": 1014,
    "step3p7": 1002,
    "hy_v4": 1007,
    "deepseek_v4": 1008,
    "glm5_next": 1016,
    "qwen4_exp": 1027,
}


NEMOTRON = {"fc1": "up_proj", "fc2": "down_proj"}
MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def experts(name, shape, same=False):
    """A stacked expert tensor under the names that a Hugging Face checkpoint gives its parts, one for each expert."""
    prefix, rest = name.split("switch_mlp.")
    projection, kind = rest.split(".")
    renamed = not same and ("block_sparse_moe" in prefix or "feed_forward" in prefix or "fc" in projection)
    part = {**NEMOTRON, **MIXTRAL}[projection] if renamed else projection
    return {f"{prefix}experts.{e}.{part}.{kind}": shape[1:] for e in range(shape[0])}


# Models whose checkpoints have convolutions as (C, 1, K), as all but MLX's have.
TURNED = ("olmo_hybrid", "plamo2", "bailing_moe_v3", "mamba", "falcon_mamba", "jamba", "nemotron_h", "granitemoehybrid", "falcon_h1")


def granite_mlp(path, shape):
    """A part of an MLP, or of experts, as Granite's checkpoints have them."""
    layer, part, _ = path.rsplit(".", 2)
    holder = layer.removesuffix(".switch_mlp")
    if holder == layer:
        holder = f"{layer.removesuffix('.mlp')}.shared_mlp"
    if part == "down_proj":
        return {f"{holder}.output_linear.weight": shape}
    *experts, rows, columns = shape
    return {f"{holder}.input_linear.weight": [*experts, 2 * rows, columns]} if part == "gate_proj" else {}


def keys_values(name, parameters):
    """The projection of keys and values as one, which the model takes apart."""
    (heads, rank, key), (_, value, _) = (parameters[f"{name}.{part}.weight"].shape for part in ("embed_q", "unembed_out"))
    return {f"{name}.kv_b_proj.weight": [heads * (key + value), rank]}


def renamed(path, shape, name):
    """A tensor under the name, and in the shape, of a Hugging Face checkpoint, where they are others than the model's."""
    if "_vl" in name and name != "minimax_m3_vl":
        path = path.replace("language_model.model.", "model.language_model.").removeprefix("language_model.")
    if name == "muse_glimmer":
        path = path.replace("model.", "model.language_model.", 1)
    if name.startswith("lfm2") and "-vl" not in name:
        for theirs, ours in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")):
            path = path.replace(f"feed_forward.{ours}", f"feed_forward.{theirs}")
        if path.endswith("conv.weight"):
            return {path: [shape[0], shape[2], shape[1]]}
    if name == "qwen3_next" and path.endswith("conv1d.weight") or path.endswith("conv_1d.weight"):
        return {path: [shape[0], shape[2], shape[1]]}
    if name == "longcat_flash_ngram":
        path = path.replace("ngram_embeddings.word_embeddings", "embed_tokens")
    return {path: shape}


def transposed(name, shape):
    """The stacked experts of Qwen 3 VL, input by output, the first two projections as one."""
    prefix, projection = name.replace("language_model.model.", "model.language_model.").split("switch_mlp.")
    if projection == "gate_proj.weight":
        return {f"{prefix}experts.gate_up_proj": [shape[0], shape[2], 2 * shape[1]]}
    return {f"{prefix}experts.down_proj": [shape[0], shape[2], shape[1]]} if projection == "down_proj.weight" else {}


def gemma4(path, shape):
    """A tensor of Gemma 4 under the name of a Hugging Face checkpoint; experts' halves as one."""
    path = path.replace("language_model.model.", "model.language_model.")
    prefix, _, projection = path.partition("switch_glu.")
    if projection == "gate_proj.weight":
        return {f"{prefix}gate_up_proj": [shape[0], 2 * shape[1], shape[2]]}
    if projection == "down_proj.weight":
        return {f"{prefix}down_proj": shape}
    return {} if projection else {path: shape}


def llama4(path, shape):
    """A tensor of Llama 4 under the name, and in the shape, of a Hugging Face checkpoint."""
    prefix, _, projection = path.partition("experts.")
    if projection == "gate_proj.weight":
        return {f"{prefix}experts.gate_up_proj": [shape[0], shape[2], 2 * shape[1]]}
    if projection == "down_proj.weight":
        return {f"{prefix}experts.down_proj": [shape[0], shape[2], shape[1]]}
    return {} if projection else {path: shape}


def original(path, shape):
    """A tensor of Qwen 3.5 under the name, and in the shape, of a Hugging Face checkpoint; experts' halves as one."""
    path = path.replace("language_model.model.", "model.language_model.").removeprefix("language_model.")
    if path.endswith("conv1d.weight"):
        return {path: [shape[0], shape[2], shape[1]]}
    prefix, _, projection = path.partition("switch_mlp.")
    if projection == "gate_proj.weight":
        return {f"{prefix}experts.gate_up_proj": [shape[0], 2 * shape[1], shape[2]]}
    if projection == "down_proj.weight":
        return {f"{prefix}experts.down_proj": shape}
    return {} if projection else {path: shape}


def kimi(path, shape):
    """A tensor of Kimi Linear as its checkpoint has it, but for experts and what is taken apart."""
    if ".mlp." in path and ("e_score" in path or ".gate." in path or "shared_experts" in path):
        path = path.replace(".mlp.", ".block_sparse_moe.").replace(".e_score", ".gate.e_score")
    if path.endswith("conv.weight"):
        return {path.replace("_conv.conv.weight", "_conv1d.weight"): [shape[0], shape[2], shape[1]]}
    if path.endswith("dt_bias"):
        return {path: [2, shape[0] // 2]}
    return {path: shape}


def kimi_k3(path, shape):
    """A tensor of Kimi K3 as its checkpoint has it, but for experts and what is taken apart."""
    if ".mlp." in path and any(part in path for part in ("e_score", ".gate.", "shared_experts", "routed_expert")):
        path = path.replace(".mlp.", ".block_sparse_moe.").replace(".e_score", ".gate.e_score")
    if "qkv_proj" in path:
        return {path.replace("qkv", part): [shape[0] // 3, shape[1]] for part in "qkv"}
    if "qkv_conv" in path:
        return {path.replace("qkv_conv.conv", f"{part}_conv1d"): [shape[0] // 3, 1, shape[1]] for part in "qkv"}
    for part in ("proj", "norm"):
        path = path.replace(f"res_{part}.weight", f"res.{part}_weight")
    return {path: shape}


DEEPSEEK_V41 = (
    ("model.", ""), ("self_attn", "attn"), (".mlp.", ".ffn."), ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"), ("attn_hc.", "hc_attn_"), ("ffn_hc.", "hc_ffn_"), ("sinks", "attn_sink"),
    ("q_a_proj", "wq_a"), ("q_b_proj", "wq_b"), ("compressor.kv_norm", "compressor.norm"), ("k_proj", "wk"),
    ("q_a_norm", "q_norm"), ("o_a_proj", "wo_a"), ("o_b_proj", "wo_b"), ("e_score_correction_bias", "bias"),
    ("embed_tokens", "embed"), ("lm_head", "head"),
)


def deepseek_v41(path, shape):
    """A tensor of DeepSeek V4.1 as its checkpoint has it."""
    if "switch_mlp" in path or "shared_experts" in path:
        for ours, theirs in MIXTRAL.items():
            path = path.replace(ours, theirs)
    else:
        path = path.replace("gate_proj", "wgate").replace("kv_proj", "wkv")
    for ours, theirs in DEEPSEEK_V41:
        path = path.replace(ours, theirs)
    if "switch_mlp." in path:
        return {path.replace("switch_mlp", str(e)): shape[1:] for e in range(shape[0])}
    return {path: [shape[0] * shape[1], shape[2]] if "wo_a" in path else shape}


def muse_spark(path, shape):
    """A tensor of Muse Spark as its checkpoint has it."""
    if path.endswith("_beta") or path.endswith("up_proj.weight"):
        return {}
    if path.endswith("_alpha"):
        part = "attention" if "_attn_" in path else "feedforward"
        return {f"{path.split('add_')[0]}post_{part}_residual_gate.gate": shape}
    if path.endswith("gate_proj.weight"):
        return {path.replace("gate_proj.weight", "gate_up_proj"): [shape[0], 2 * shape[1], shape[2]]}
    if "qkvg_proj" in path:
        rows = {"q_proj": 64, "k_proj": 32, "v_proj": 32, "gate_proj": 64}
        return {path.replace("qkvg_proj", part): [count, shape[1]] for part, count in rows.items()}
    return {path.replace("experts.down_proj.weight", "experts.down_proj"): shape}


def laguna(path):
    return path.replace("mlp.gate.proj", "mlp.gate").replace("mlp.gate.e_score", "mlp.experts.e_score")
def step(path):
    """A tensor of Step 3.5 under the name of a Hugging Face checkpoint; experts are stacked there too."""
    for ours, theirs in (("mlp.switch_mlp.", "moe."), ("mlp.gate.", "moe."), ("mlp.share_expert.", "share_expert.")):
        path = path.replace(ours, theirs)
    return path


def gpt2(path, shape):
    """A tensor of GPT-2 as its checkpoint has it: input by output."""
    path = path.removeprefix("model.")
    return {path: shape[::-1] if path.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else shape}


def gpt_neox(path, shape):
    if "embed_out" in path:
        return {path.removeprefix("model."): shape}
    return {path.replace("model.", "gpt_neox.", 1).replace(".h.", ".layers."): shape}


def apertus(path, shape):
    return {path: shape if shape or path.endswith(("beta", "eps")) else [1]}


def stacked(path, shape):
    """A tensor of experts that are stacked under the name of their list."""
    if ".mlp.experts." not in path:
        return {path: shape}
    return {path.replace("experts.", f"experts.{e}."): shape[1:] for e in range(shape[0])}


def bare(path, shape):
    """A tensor of a text model without the prefix that mlx-vlm puts before it; experts one by one."""
    path = path.removeprefix("language_model.")
    return experts(path, shape) if "switch_mlp." in path else {path: shape}


# What AI2's program saves as one of OLMo 1, by transformers' names.
OLMO_PARTS = {
    "att_proj": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "attn_out": ["self_attn.o_proj"],
    "ff_proj": ["mlp.up_proj", "mlp.gate_proj"], "ff_out": ["mlp.down_proj"],
}


def olmo(path, shape):
    """A tensor of OLMo 1 as transformers has it."""
    if ".blocks." not in path:
        return {"model.embed_tokens.weight" if "wte" in path else "lm_head.weight": shape}
    _, _, _, layer, part, _ = path.split(".")
    names = OLMO_PARTS[part]
    return {f"model.layers.{layer}.{name}.weight": [shape[0] // len(names), shape[1]] for name in names}


def phixtral(path, shape):
    prefix, _, rest = path.partition("switch_mlp.")
    return {f"{prefix}mlp.{e}.{rest}": shape[1:] for e in range(shape[0])} if rest else {path: shape}


def dbrx(path, shape):
    """A tensor of DBRX as its checkpoint has it: experts one below the other, the last projection input by output."""
    prefix, _, rest = path.partition(".experts.")
    if not rest:
        return {path: shape}
    expert, part, _ = rest.split(".")
    if expert != "0":
        return {}
    rows, columns = shape[::-1] if part == "w2" else shape
    return {f"{prefix}.experts.mlp.{part}": [6 * rows, columns]}


def hunyuan_joint(path, shape):
    """A tensor of Hunyuan's as its checkpoints without experts have it."""
    if "_proj" not in path or "o_proj" in path or "down_proj" in path:
        return {path: shape}
    if "self_attn" in path:
        return {path.replace("q_proj", "qkv_proj"): [2 * shape[0], shape[1]]} if "q_proj" in path else {}
    return {path.replace("up_proj", "gate_and_up_proj"): [2 * shape[0], shape[1]]} if "up_proj" in path else {}


def gear(path, shape):
    return {path: [shape[0], 1, shape[1]] if path.endswith("_conv.weight") else shape}
def joint(path, shape):
    """A tensor of MiMo V2.6: queries, keys and values as one."""
    for name in ("k_proj", "v_proj"):
        if f"self_attn.{name}" in path:
            return {}
    if "self_attn.q_proj" in path:
        rows = 128 + 32 + 16 if ".layers.0." in path else 128 + 64 + 32
        return bare(path.replace("q_proj", "qkv_proj"), [rows, shape[1]])
    return bare(path, shape)


def hy_v4(path, shape):
    """A tensor of Hunyuan 4, whose experts are stacked, and have their first two matrices as one."""
    path = path.removeprefix("language_model.")
    if ".embed_q." in path:
        heads, rank, plain = shape
        return {path.replace("embed_q", "kv_b_proj"): [heads * (plain + 32), rank]}
    if ".unembed_out." in path:
        return {}
    if "switch_mlp." in path:
        path = path.replace("switch_mlp", "experts").removesuffix(".weight")
    return {path: shape}


def deepseek_v4(path, shape):
    """A tensor of DeepSeek V4 as its checkpoint has it."""
    path = path.removeprefix("language_model.").removeprefix("model.")
    for ours, theirs in (
        ("embed_tokens", "embed"), ("lm_head", "head"), ("attn_hc.", "hc_attn_"), ("ffn_hc.", "hc_ffn_"),
        ("hc_head.", "hc_head_"), ("e_score_correction_bias", "bias"),
    ):
        path = path.replace(ours, theirs)
    if "switch_mlp" in path or "shared_experts" in path:
        for ours, theirs in MIXTRAL.items():
            path = path.replace(ours, theirs)
    if "switch_mlp." in path:
        return {path.replace("switch_mlp", f"experts.{e}"): shape[1:] for e in range(shape[0])}
    return {path: [shape[0] * shape[1], shape[2]] if "wo_a" in path else shape}


GLM5_NEXT = {
    "qkv_proj": {"q_proj": 64, "k_proj": 64, "v_proj": 64},
    "qkv_conv.conv": {"q_conv1d": 64, "k_conv1d": 64, "v_conv1d": 64},
    "fbg_a_proj": {"f_a_proj": 32, "b_proj": 2, "g_a_proj": 32},
    "qkv_a_proj": {"q_a_proj": 64, "kv_a_proj_with_mqa": 32},
}


def glm5_next(path, shape):
    """A tensor of GLM 5.3 as its checkpoint has it: what mlx-vlm joins is apart there."""
    path = path.replace("language_model.model.", "model.language_model.").removeprefix("language_model.")
    path = path.replace("attn_hc.", "hc_attn_").replace("ffn_hc.", "hc_ffn_")
    for ours, parts in GLM5_NEXT.items():
        if f"self_attn.{ours}." in path:
            rest = [1, shape[1]] if "conv" in ours else shape[1:]
            return {path.replace(ours, name): [rows, *rest] for name, rows in parts.items()}
    if "gate_up_proj" in path:
        return {path.replace("gate_up", half): [shape[0] // 2, shape[1]] for half in ("gate", "up")}
    return hy_v4(path, shape) if "switch_mlp" not in path else experts(path, shape)


def qwen4_exp(path, shape):
    """A tensor of Qwen 4 as its checkpoint has it."""
    path = path.replace("language_model.model.", "model.language_model.").removeprefix("language_model.")
    if "layer_multipliers" in path or "ngram_heads" in path or "switch_mlp.up_proj" in path:
        return {}
    if "switch_mlp.gate_proj" in path:
        return {path.replace("switch_mlp.gate_proj.weight", "experts.gate_up_proj"): [shape[0], 2 * shape[1], shape[2]]}
    if path.endswith("conv1d.weight"):
        return {path: [shape[0], 1, shape[1]]}
    return {path.replace("switch_mlp.down_proj.weight", "experts.down_proj").replace("shards.", "shard_"): shape}


RENAMED = {
    "qwen4_exp": qwen4_exp, "glm5_next": glm5_next,
    "deepseek_v4": deepseek_v4, "hy_v4": hy_v4,
    "mimo_v2": joint, "step3p7": lambda path, shape: {step(path.removeprefix("language_model.")): shape},
    "k2_horizon": bare, "cohere2_moe": bare,
    "olmo": olmo, "phixtral": phixtral, "dbrx": dbrx, "hunyuan_joint": hunyuan_joint, "gear": gear,
    # mlx-lm reads no others: what its checkpoints have as one it does not take apart.
    "kimi_vl": lambda path, shape: {path: shape},
    "dots1": lambda path, shape: stacked(path, shape),
    "Klear": lambda path, shape: stacked(path, shape), "afmoe": lambda path, shape: stacked(path, shape),
    "gpt2": gpt2, "gpt_neox": gpt_neox, "apertus": apertus,
    "gptj": lambda path, shape: {path.replace("model.", "transformer.", 1): shape},
}


HEADLESS = {"gemma3_text", "gemma3", "recurrent_gemma"}


def checkpoint(name, parameters):
    """Tensor name -> shape, as the checkpoint that `sanitize` meets has them."""
    shapes = {}
    for path, x in parameters:
        if name in RENAMED:
            shapes |= RENAMED[name](path, list(x.shape))
        elif name == "deepseek_v41":
            shapes |= deepseek_v41(path, list(x.shape))
        elif name.startswith("qwen3_5") or name == "mistral4" and "switch_mlp." in path:
            shapes |= original(path, list(x.shape))
        elif name.startswith("granitemoe") and path.endswith(("gate_proj.weight", "up_proj.weight", "down_proj.weight")):
            shapes |= granite_mlp(path, list(x.shape))
        elif path.endswith("mlp.gate.gate_proj.weight"):
            shapes[path.replace("gate.gate_proj", "gate")] = list(x.shape)
        elif name.startswith(TURNED) and name != "mamba2" and path.endswith("conv1d.weight"):
            channels, size, _ = x.shape
            shapes[path] = [channels, 1, size]
        elif name in ("kimi_linear", "kimi_k3") and "switch_mlp." in path:
            shapes |= experts(path.replace(".mlp.", ".block_sparse_moe."), list(x.shape))
        elif "switch_mlp." in path and name == "qwen3_vl_moe":
            shapes |= transposed(path, list(x.shape))
        elif name == "step3p5":
            shapes[step(path)] = list(x.shape)
        elif name == "llama4":
            shapes |= llama4(path, list(x.shape))
        elif name == "gemma4":
            shapes |= gemma4(path, list(x.shape))
        elif "switch_mlp." in path:
            shapes |= experts(path, list(x.shape), same=name == "jamba")
        elif ".embed_q." in path:
            shapes |= keys_values(path.split(".embed_q.")[0], dict(parameters))
        elif ".unembed_out." in path:
            continue
        elif name == "muse_spark":
            shapes |= muse_spark(path, list(x.shape))
        elif name == "kimi_k3":
            shapes |= kimi_k3(path, list(x.shape))
        elif name == "kimi_linear":
            shapes |= kimi(path, list(x.shape))
        elif name == "rwkv7" and path.split("attn.")[-1] in ("k_k", "k_a", "g_norm.weight", "g_norm.bias"):
            shapes[path] = [x.size]
        elif name == "laguna":
            shapes[laguna(path)] = list(x.shape)
        elif not path.endswith("lm_head.weight") or name not in HEADLESS:
            shapes |= renamed(path, list(x.shape), name)
    if name == "mimo":
        shapes["model.mtp_layers.0.input_proj.weight"] = [64, 128]
    return shapes
