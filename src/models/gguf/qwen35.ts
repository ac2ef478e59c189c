/** Qwen 3.5 and Qwen 3 Next in GGUF files. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { RopeScaling } from "../../nn";
import {
  convolution,
  decayRate,
  type HeadGroups,
  inTurn,
  type JoinedTensors,
  spreadColumns,
  spreadRows,
  type TensorChanges,
} from "./changes";
import { type DecoderSettings, decoder } from "./decoder";
import { flag, type GgufDescription, type GgufFacts, type GgufField, type GgufFields, u32 } from "./facts";
import { expertLayer, fusedExperts, postNormLayer, sharedExpert, TensorNames } from "./names";
import { noPlace } from "./rope";

/** Of the attention and the delta rule, whose parts stand side by side. */
export const hybridLayer = {
  ...postNormLayer,
  attn_qkv: "linear_attn.in_proj_qkv",
  attn_gate: "linear_attn.in_proj_z",
  ssm_beta: "linear_attn.in_proj_b",
  ssm_alpha: "linear_attn.in_proj_a",
  ssm_conv1d: "linear_attn.conv1d",
  ssm_norm: "linear_attn.norm",
  ssm_out: "linear_attn.out_proj",
};

export const hybridExperts = {
  ...expertLayer("mlp"),
  ...sharedExpert("mlp.shared_expert"),
  ffn_gate_inp_shexp: "mlp.shared_expert_gate",
};

export interface HybridConfig {
  num_hidden_layers: number;
  full_attention_interval: number;
  layer_types?: readonly string[] | null;
  partial_rotary_factor?: number | null;
  rope_parameters?: RopeScaling | null;
  linear_num_value_heads: number;
  linear_num_key_heads: number;
  linear_key_head_dim: number;
  linear_value_head_dim: number;
  linear_conv_kernel_dim: number;
  attention_bias: boolean;
  num_experts: number;
  num_experts_per_tok: number;
  moe_intermediate_size: number;
  shared_expert_intermediate_size: number;
  norm_topk_prob: boolean;
}

/** Files have the heads of values by their number within a head of keys; checkpoints by the head of keys. */
export function spreadHeads(config: object): TensorChanges {
  const args = config as HybridConfig;
  const { linear_num_key_heads: groups, linear_num_value_heads: heads } = args;
  const spread: HeadGroups = { groups, perGroup: heads / groups };
  const keys = 2 * groups * args.linear_key_head_dim;
  return {
    "linear_attn.in_proj_qkv": spreadRows(spread, keys),
    "linear_attn.in_proj_z": spreadRows(spread),
    "linear_attn.in_proj_b": spreadRows(spread),
    "linear_attn.in_proj_a": spreadRows(spread),
    "linear_attn.conv1d": inTurn(convolution, spreadRows(spread, keys)),
    "linear_attn.A_log": inTurn(decayRate, spreadRows(spread)),
    "linear_attn.dt_bias": spreadRows(spread),
    "linear_attn.out_proj": spreadColumns(spread, args.linear_value_head_dim),
  };
}

/** Whether a layer attends to all tokens, which others reach by the delta rule. */
const attends = ({ layer_types, full_attention_interval: interval }: HybridConfig, index: number) =>
  layer_types ? layer_types[index] === "full_attention" : (index + 1) % interval === 0;

/** Sections of a rotation by three coordinates: text has the same one thrice. */
const usualSections = [11, 11, 10];

const usualShare = 0.25;

export const turningShare = ({ rope_parameters, partial_rotary_factor }: HybridConfig): number =>
  rope_parameters?.partial_rotary_factor ?? partial_rotary_factor ?? usualShare;

/** The fields of the delta rule and of which layers have it. */
export function readHybrid(file: GgufDescription): Record<string, unknown> {
  const valueHeads = file.need("ssm.time_step_rank");
  const layers = file.need("block_count") - (file.number("nextn_predict_layers") ?? 0);
  const recurrent = file.list("attention.recurrent_layers");
  return {
    full_attention_interval: file.number("full_attention_interval") ?? 4,
    layer_types: recurrent?.slice(0, layers).map((is) => (is ? "linear_attention" : "full_attention")),
    linear_num_value_heads: valueHeads,
    linear_num_key_heads: file.need("ssm.group_count"),
    linear_key_head_dim: file.need("ssm.state_size"),
    linear_value_head_dim: file.need("ssm.inner_size") / valueHeads,
    linear_conv_kernel_dim: file.need("ssm.conv_kernel"),
  };
}

export function writeHybrid(args: HybridConfig): GgufFields {
  const { linear_key_head_dim: width, linear_value_head_dim: valueWidth, full_attention_interval: interval } = args;
  if (valueWidth !== width) noPlace(`"linear_value_head_dim" ${valueWidth} (not "linear_key_head_dim", ${width})`);
  if (args.attention_bias) noPlace('"attention_bias"');
  const layers = Array.from({ length: args.num_hidden_layers }, (_, index) => attends(args, index));
  const isPeriodic = layers.every((whole, index) => whole === ((index + 1) % interval === 0));
  return {
    "ssm.conv_kernel": u32(args.linear_conv_kernel_dim),
    "ssm.state_size": u32(width),
    "ssm.group_count": u32(args.linear_num_key_heads),
    "ssm.time_step_rank": u32(args.linear_num_value_heads),
    "ssm.inner_size": u32(valueWidth * args.linear_num_value_heads),
    full_attention_interval: u32(interval),
    "attention.recurrent_layers": isPeriodic ? undefined : flag(layers.map((whole) => !whole)),
  };
}

export function readExperts(file: GgufDescription): Record<string, unknown> {
  return {
    num_experts: file.need("expert_count"),
    num_experts_per_tok: file.need("expert_used_count"),
    moe_intermediate_size: file.need("expert_feed_forward_length"),
    shared_expert_intermediate_size: file.need("expert_shared_feed_forward_length"),
    norm_topk_prob: true,
  };
}

export function writeExperts(args: HybridConfig): GgufFields {
  if (!args.norm_topk_prob) noPlace('"norm_topk_prob" false');
  return {
    expert_count: u32(args.num_experts),
    expert_used_count: u32(args.num_experts_per_tok),
    expert_feed_forward_length: u32(args.moe_intermediate_size),
    expert_shared_feed_forward_length: u32(args.shared_expert_intermediate_size),
  };
}

const argsOf = (settings: DecoderSettings) => settings as unknown as HybridConfig;

/** The rotation by three coordinates. */
export function readSections(
  file: GgufDescription,
  { rope_theta, rope_scaling, partial_rotary_factor = 1 }: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const sections = file.list("rope.dimension_sections")?.slice(0, 3) ?? usualSections;
  return {
    rope_theta: undefined,
    rope_scaling: undefined,
    rope_parameters: {
      type: "default",
      mrope_section: sections,
      mrope_interleaved: true,
      rope_theta,
      partial_rotary_factor,
      ...(rope_scaling as object | undefined),
    },
  };
}

export const sectionsField = ({ rope_parameters: rope }: HybridConfig): GgufField => [
  "int32",
  [...(rope?.mrope_section ?? usualSections), 0, 0, 0, 0].slice(0, 4),
];

export function qwen35(architecture: "qwen35" | "qwen35moe"): GgufFacts {
  const isSparse = architecture === "qwen35moe";
  return decoder(architecture, {
    names: new TensorNames(isSparse ? { ...hybridLayer, ...hybridExperts } : hybridLayer, {
      parameters: { ssm_a: "linear_attn.A_log", "ssm_dt.bias": "linear_attn.dt_bias" },
      halves: isSparse ? fusedExperts("mlp") : {},
      prefix: "language_model.",
    }),
    changes: spreadHeads,
    ropeBase: 100_000,
    turning: (settings) => Math.trunc(settings.headDim * turningShare(argsOf(settings))),
    read: (file, common) => ({
      ...readSections(file, common),
      ...(isSparse ? readExperts(file) : {}),
      ...readHybrid(file),
    }),
    write(settings) {
      const args = argsOf(settings);
      if (args.num_experts > 0 !== isSparse) noPlace(`"num_experts" ${args.num_experts}`);
      return {
        "rope.dimension_sections": sectionsField(args),
        ...writeHybrid(args),
        ...(isSparse ? writeExperts(args) : {}),
      };
    },
  });
}

/** Queries, keys, values and gates lie by heads of keys in checkpoints, and one after the other in two tensors of files. */
function qwen3NextInputs(config: object): JoinedTensors {
  const { linear_num_key_heads: heads, linear_key_head_dim: keyDim, ...args } = config as HybridConfig;
  const valueDim = (args.linear_num_value_heads / heads) * args.linear_value_head_dim;
  const within = [keyDim, 2 * keyDim, 2 * keyDim + valueDim];
  const byHead = (x: Tensor, dims: number) => x.reshape(heads, dims, -1);
  const flat = (x: Tensor) => x.reshape(-1, x.dim(-1));
  return {
    "linear_attn.in_proj_qkvz": {
      parts: ["attn_qkv", "attn_gate"],
      movesRows: true,
      join([qkv, gate]) {
        const [q, k, v] = qkv!.split([heads * keyDim, 2 * heads * keyDim], 0) as [Tensor, Tensor, Tensor];
        const parts = [byHead(q, keyDim), byHead(k, keyDim), byHead(v, valueDim), byHead(gate!, valueDim)];
        return flat(mx.concatenate(parts, { axis: 1 }));
      },
      split(x) {
        const [q, k, v, z] = byHead(x, 2 * (keyDim + valueDim))
          .split(within, 1)
          .map(flat) as [Tensor, Tensor, Tensor, Tensor];
        return [mx.concatenate([q, k, v], { axis: 0 }), z];
      },
    },
  };
}

export const qwen3Next = (): GgufFacts =>
  decoder("qwen3next", {
    names: new TensorNames(
      {
        ...hybridLayer,
        ...hybridExperts,
        // Of old files.
        ssm_in: "linear_attn.in_proj_qkvz",
        ssm_ba: "linear_attn.in_proj_ba",
      },
      {
        parameters: { ssm_a: "linear_attn.A_log", "ssm_dt.bias": "linear_attn.dt_bias" },
        halves: fusedExperts("mlp"),
      },
    ),
    joined: qwen3NextInputs,
    changes: () => ({ "linear_attn.conv1d": convolution, "linear_attn.A_log": decayRate }),
    ropeBase: 100_000,
    turning: (settings) => Math.trunc(settings.headDim * turningShare(argsOf(settings))),
    only: { decoder_sparse_step: 1, mlp_only_layers: [] },
    read: (file) => ({ ...readExperts(file), ...readHybrid(file) }),
    write: (settings) => ({ ...writeHybrid(argsOf(settings)), ...writeExperts(argsOf(settings)) }),
  });
