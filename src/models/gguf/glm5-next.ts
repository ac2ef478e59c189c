/** GLM 5.3 Flash in GGUF files. */
import { channelKernels, decayRate } from "./changes";
import { decoder, expertGroups, precise, routedExperts } from "./decoder";
import { gating, indexerFields, indexerLayer, latentLayer } from "./deepseek2";
import { f32, type GgufFacts, u32 } from "./facts";
import { connectionNames, deltaLayer, expertLayer, fusedExperts, plainLayer, sharedExpert, TensorNames } from "./names";
import { noPlace } from "./rope";

interface Config {
  vocab_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  first_k_dense_replace: number;
  mlp_layer_types?: readonly string[] | null;
  layer_types?: string[] | null;
  kv_lora_rank: number;
  qk_nope_head_dim: number;
  v_head_dim: number;
  linear_num_heads: number;
  swiglu_limit: number;
}

/** Positions are nowhere: contexts have no limit but that of files' readers. */
const anyLength = 2 ** 20;

/** llama.cpp's kernels have this many streams. */
const publishedStreams = 4;

/** @param isDelta whether a layer has delta attention */
export const glm5Next = (isDelta: (args: Config, index: number) => boolean): GgufFacts =>
  decoder("glm5-next", {
    names: new TensorNames(
      {
        ...plainLayer,
        ...latentLayer,
        ...indexerLayer,
        ...expertLayer("mlp"),
        ...sharedExpert("mlp.shared_experts"),
        ssm_conv1d_q: "self_attn.q_conv1d",
        ssm_conv1d_k: "self_attn.k_conv1d",
        ssm_conv1d_v: "self_attn.v_conv1d",
        ...deltaLayer,
        ssm_g_a: "self_attn.g_a_proj",
        ssm_g_b: "self_attn.g_b_proj",
      },
      {
        parameters: {
          ssm_a: "self_attn.A_log",
          "ssm_dt.bias": "self_attn.dt_bias",
          "indexer_compressor_gate.weight": "self_attn.indexer.index_kpool_compress_gate",
          "indexer_compressor_ape.weight": "self_attn.indexer.index_kpool_compress_ape",
          "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
          ...connectionNames((part) => `${part}_hc.`),
        },
        halves: fusedExperts("mlp"),
        prefix: "language_model.",
      },
    ),
    changes: () => ({
      "self_attn.q_conv1d": channelKernels,
      "self_attn.k_conv1d": channelKernels,
      "self_attn.v_conv1d": channelKernels,
      "self_attn.A_log": decayRate,
    }),
    turning: () => 0,
    stretches: false,
    integers: {
      ...routedExperts,
      ...indexerFields,
      ...expertGroups,
      leading_dense_block_count: "first_k_dense_replace",
      "attention.q_lora_rank": "q_lora_rank",
      "attention.kv_lora_rank": "kv_lora_rank",
      "attention.indexer.kpool": "index_kpool",
      "hyper_connection.count": "hc_mult",
      "hyper_connection.sinkhorn_iterations": "hc_sinkhorn_iters",
      "kda.head_dim": "linear_head_dim",
      "ssm.conv_kernel": "linear_conv_kernel_dim",
    },
    floats: {
      expert_weights_scale: "routed_scaling_factor",
      "hyper_connection.epsilon": "hc_eps",
      "kda.gate_lower_bound": "linear_lower_bound",
    },
    flags: { expert_weights_norm: "norm_topk_prob" },
    only: { attention_bias: false, tie_word_embeddings: false, hc_mult: publishedStreams },
    common(config) {
      const {
        mlp_layer_types: types,
        first_k_dense_replace: dense,
        text_config: text,
      } = config as Config & {
        text_config?: { max_position_embeddings?: number };
      };
      const count = types ? types.lastIndexOf("dense") + 1 : dense;
      if (types?.slice(0, count).includes("sparse")) noPlace('"mlp_layer_types" with a dense layer behind sparse ones');
      return {
        num_key_value_heads: null,
        layer_types: null,
        first_k_dense_replace: count,
        max_position_embeddings: text?.max_position_embeddings ?? anyLength,
      };
    },
    read(file, common) {
      const layers = common.num_hidden_layers as number;
      const each = Array.from({ length: layers }, (_, i) => i);
      const heads = file.list("attention.head_count_kv") ?? [];
      const types = each.map((i) => (heads[i] === 0 ? "linear_attention" : "full_attention"));
      const chooses = file.list("attention.indexer.types") ?? [];
      if (each.some((i) => types[i] === "full_attention" && chooses[i] === 0)) {
        file.wrong("some of its layers share the choice of tokens of an earlier one, which mlxlm does not do");
      }
      const limits = file.list("swiglu_clamp_exp")?.slice(0, layers).map(precise) ?? [];
      if (new Set(limits).size > 1) file.wrong('"swiglu_clamp_exp" differs between layers; mlxlm has one limit');
      return {
        partial_rotary_factor: undefined,
        num_key_value_heads: undefined,
        head_dim: undefined,
        layer_types: types,
        linear_num_heads: common.num_attention_heads,
        linear_lower_bound: common.linear_lower_bound ?? null,
        qk_nope_head_dim: file.need("attention.key_length_mla"),
        v_head_dim: file.need("attention.value_length_mla"),
        swiglu_limit: limits[0] ?? 0,
      };
    },
    write(_, config) {
      const args = config as Config;
      const { num_hidden_layers: layers, num_attention_heads: heads, kv_lora_rank: rank, swiglu_limit: limit } = args;
      if (args.linear_num_heads !== heads) noPlace(`"linear_num_heads" ${args.linear_num_heads} (not ${heads})`);
      const limits = limit > 0 ? f32(Array.from({ length: layers }, () => limit)) : undefined;
      return {
        vocab_size: u32(args.vocab_size),
        "attention.layer_norm_epsilon": f32(1e-6),
        "attention.head_count_kv": u32(Array.from({ length: layers }, (_, i) => (isDelta(args, i) ? 0 : 1))),
        "attention.key_length": u32(rank),
        "attention.value_length": u32(rank),
        "attention.key_length_mla": u32(args.qk_nope_head_dim),
        "attention.value_length_mla": u32(args.v_head_dim),
        "attention.indexer.kpool_select_tail": ["bool", true],
        swiglu_clamp_exp: limits,
        swiglu_clamp_shexp: limits,
        expert_gating_func: u32(gating.sigmoid),
      };
    },
  });
