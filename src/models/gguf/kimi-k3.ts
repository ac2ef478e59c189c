/** Kimi K3 in GGUF files. */
import * as mx from "../../mlx";
import { channelKernels, decayRate, type MergedTensors } from "./changes";
import { decoder, precise } from "./decoder";
import { gating, latentLayer } from "./deepseek2";
import { f32, type GgufFacts, u32 } from "./facts";
import { deltaLayer, expertLayer, fusedExperts, plainLayer, sharedExpert, TensorNames } from "./names";
import { noPlace } from "./rope";

interface Config {
  vocab_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_experts?: number | null;
  q_lora_rank?: number | null;
  kv_lora_rank: number;
  qk_nope_head_dim: number;
  qk_rope_head_dim: number;
  v_head_dim: number;
  attn_res_block_size?: number | null;
  activation_situ_beta?: number | null;
  activation_situ_linear_beta?: number | null;
  max_position_embeddings?: number | null;
  model_max_length?: number | null;
  linear_attn_config: {
    num_heads: number;
    head_dim: number;
    short_conv_kernel_size: number;
    gate_lower_bound?: number | null;
    use_full_rank_gate?: boolean | null;
  };
}

type IsDelta = (args: Config, index: number) => boolean;

const trunk = "language_model.model";

const layersOf = ({ num_hidden_layers: layers }: Config) => Array.from({ length: layers }, (_, index) => index);

/** A norm's gain and a projection to one score, which are only used as their product: files have that. */
const scoreOf = (path: string): MergedTensors[string] => ({
  parameters: [`${path}_norm.weight`, `${path}_proj.weight`],
  merge: ([norm, projection]) => norm!.astype("float32").multiply(projection!.flatten()),
  part: (x) => [mx.ones(x.shape), x.expandDims(0)],
});

function scores(args: Config): MergedTensors {
  if (!args.attn_res_block_size) return {};
  const each = layersOf(args).flatMap((index) => [
    [`blk.${index}.attn_res_score.weight`, scoreOf(`${trunk}.layers.${index}.self_attention_res`)],
    [`blk.${index}.ffn_res_score.weight`, scoreOf(`${trunk}.layers.${index}.mlp_res`)],
  ]);
  return Object.fromEntries([...each, ["output_res_score.weight", scoreOf(`${trunk}.output_attn_res`)]]);
}

/** Gates of both kinds of attention, which files call differently. */
const gates = (args: Config, isDelta: IsDelta) =>
  Object.fromEntries(
    layersOf(args).map((index) => [
      `blk.${index}.${isDelta(args, index) ? "ssm_g" : "attn_gate"}`,
      `${trunk}.layers.${index}.self_attn.g_proj`,
    ]),
  );

/** Where a configuration says none. */
const usualContext = 262_144;

/** @param isDelta whether a layer has delta attention */
export const kimiK3 = (isDelta: IsDelta): GgufFacts =>
  decoder("kimi-k3", {
    names: new TensorNames(
      {
        ...plainLayer,
        ...latentLayer,
        ...expertLayer("mlp"),
        ...sharedExpert("mlp.shared_experts"),
        ffn_routed_down: "mlp.routed_expert_down_proj",
        ffn_routed_up: "mlp.routed_expert_up_proj",
        ffn_routed_norm: "mlp.routed_expert_norm",
        ...deltaLayer,
      },
      {
        parameters: {
          ssm_a: "self_attn.A_log",
          "ssm_dt.bias": "self_attn.dt_bias",
          "exp_probs_b.bias": "mlp.e_score_correction_bias",
        },
        halves: fusedExperts("mlp"),
        prefix: "language_model.",
      },
    ),
    places: (config) => gates(config as unknown as Config, isDelta),
    merged: (config) => scores(config as unknown as Config),
    joined: () => ({
      "self_attn.qkv_proj": {
        parts: ["attn_q", "attn_k", "attn_v"],
        movesRows: true,
        join: (parts) => mx.concatenate([...parts]),
        split: (x) => x.split(3),
      },
      "self_attn.qkv_conv.conv": {
        parts: ["ssm_conv1d_q", "ssm_conv1d_k", "ssm_conv1d_v"],
        join: (parts) => mx.concatenate(parts.map(channelKernels.read)),
        split: (x) => x.split(3).map(channelKernels.write),
      },
    }),
    changes: () => ({ "self_attn.A_log": decayRate }),
    turning: (settings) => (settings as unknown as Config).qk_rope_head_dim,
    stretches: false,
    only: { moe_layer_freq: 1, tie_word_embeddings: false },
    common(config) {
      const { max_position_embeddings: positions, model_max_length: length } = config as unknown as Config;
      return { max_position_embeddings: positions ?? length ?? usualContext };
    },
    integers: {
      expert_count: "num_experts",
      expert_used_count: "num_experts_per_token",
      expert_shared_count: "num_shared_experts",
      expert_feed_forward_length: "moe_intermediate_size",
      expert_latent_length: "routed_expert_hidden_size",
      expert_group_count: "num_expert_group",
      expert_group_used_count: "topk_group",
      leading_dense_block_count: "first_k_dense_replace",
      "attention.q_lora_rank": "q_lora_rank",
      "attention.kv_lora_rank": "kv_lora_rank",
    },
    floats: { expert_weights_scale: "routed_scaling_factor" },
    flags: { expert_weights_norm: "moe_renormalize" },
    read(file, { num_attention_heads: heads, num_hidden_layers }) {
      const numbers = Array.from({ length: num_hidden_layers as number }, (_, index) => index + 1);
      const kvHeads = file.list("attention.head_count_kv") ?? [];
      const hasDelta = (number: number) => kvHeads[number - 1] === 0;
      const [full, delta] = [numbers.find((number) => !hasDelta(number)), numbers.find(hasDelta)];
      const [turning, bound] = [file.need("rope.dimension_count"), file.number("kda.gate_lower_bound")];
      const last = numbers.length - 1;
      const beta = (key: string) => precise(file.number(key) ?? 0) || undefined;
      return {
        head_dim: undefined,
        partial_rotary_factor: undefined,
        num_key_value_heads: heads,
        qk_rope_head_dim: turning,
        qk_nope_head_dim: file.need("attention.key_length_mla") - turning,
        v_head_dim: file.need("attention.value_length_mla"),
        mla_use_output_gate: full !== undefined && file.shape(`blk.${full - 1}.attn_gate.weight`) !== undefined,
        latent_moe_use_norm: file.shape(`blk.${last}.ffn_routed_norm.weight`) !== undefined,
        attn_res_block_size: file.number("attn_res.block_size") || undefined,
        activation_situ_beta: beta("activation.situ_beta"),
        activation_situ_linear_beta: beta("activation.situ_linear_beta"),
        linear_attn_config: {
          kda_layers: numbers.filter(hasDelta),
          full_attn_layers: numbers.filter((number) => !hasDelta(number)),
          num_heads: heads,
          head_dim: file.need("kda.head_dim"),
          short_conv_kernel_size: file.need("ssm.conv_kernel"),
          gate_lower_bound: bound === undefined ? undefined : precise(bound),
          use_full_rank_gate: delta !== undefined,
        },
      };
    },
    write(_, config) {
      const args = config as unknown as Config;
      const { linear_attn_config: linear, num_attention_heads: heads, kv_lora_rank: rank } = args;
      if (linear.num_heads !== heads) noPlace(`"num_heads" ${linear.num_heads} of delta attention (not ${heads})`);
      if (!linear.use_full_rank_gate) noPlace('"use_full_rank_gate" false');
      if (!args.q_lora_rank) noPlace('"q_lora_rank" null');
      if (!args.num_experts) noPlace("a model without experts");
      return {
        vocab_size: u32(args.vocab_size),
        "attention.head_count_kv": u32(layersOf(args).map((index) => (isDelta(args, index) ? 0 : 1))),
        "attention.key_length": u32(rank + args.qk_rope_head_dim),
        "attention.value_length": u32(rank),
        "attention.key_length_mla": u32(args.qk_nope_head_dim + args.qk_rope_head_dim),
        "attention.value_length_mla": u32(args.v_head_dim),
        "kda.head_dim": u32(linear.head_dim),
        "kda.gate_lower_bound": linear.gate_lower_bound ? f32(linear.gate_lower_bound) : undefined,
        "ssm.conv_kernel": u32(linear.short_conv_kernel_size),
        "attn_res.block_size": u32(args.attn_res_block_size ?? 0),
        "activation.situ_beta": f32(args.activation_situ_beta ?? 1),
        "activation.situ_linear_beta": f32(args.activation_situ_linear_beta ?? 0),
        expert_gating_func: u32(gating.sigmoid),
      };
    },
  });
