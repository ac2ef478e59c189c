/** DeepSeek V2 and V3 in GGUF files: latent attention, experts in groups beside one that all tokens use. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { RopeScaling } from "../../nn";
import { ropeOptions } from "../args";
import type { JoinedTensors } from "./changes";
import { decoder } from "./decoder";
import { f32, flag, type GgufDescription, type GgufFacts, type GgufFields, u32 } from "./facts";
import { expertLayer, fusedExperts, plainLayer, sharedExpert, TensorNames } from "./names";
import { noPlace } from "./rope";

/** The parts of latent attention. */
export const latentLayer = {
  attn_q_a: "self_attn.q_a_proj",
  attn_q_a_norm: "self_attn.q_a_layernorm",
  attn_q_b: "self_attn.q_b_proj",
  attn_kv_a_mqa: "self_attn.kv_a_proj_with_mqa",
  attn_kv_a_norm: "self_attn.kv_a_layernorm",
  attn_k_b: "self_attn.embed_q",
  attn_v_b: "self_attn.unembed_out",
};

/** Layers of latent attention and experts. */
export const latentDecoderLayer = {
  ...plainLayer,
  ...latentLayer,
  ...expertLayer("mlp"),
  ...sharedExpert("mlp.shared_experts"),
  // Of old files.
  attn_kv_b: "self_attn.kv_b_proj",
};

/** What chooses the tokens that attention sees. */
export const indexerLayer = {
  "indexer.attn_q_b": "self_attn.indexer.wq_b",
  "indexer.attn_k": "self_attn.indexer.wk",
  "indexer.k_norm": "self_attn.indexer.k_norm",
  "indexer.proj": "self_attn.indexer.weights_proj",
};

export const indexerFields = {
  "attention.indexer.head_count": "index_n_heads",
  "attention.indexer.key_length": "index_head_dim",
  "attention.indexer.top_k": "index_topk",
};

/** Sizes of latent attention, and what llama.cpp knows some models by. */
interface LatentHeads {
  vocab_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  kv_lora_rank: number;
  q_lora_rank: number | null;
  qk_rope_head_dim: number;
  qk_nope_head_dim: number;
  v_head_dim: number;
  attention_bias: boolean;
}

export interface LatentConfig extends LatentHeads {
  rope_theta?: number | null;
  rope_scaling?: RopeScaling | null;
  n_routed_experts?: number | null;
  n_shared_experts?: number | null;
  num_experts_per_tok: number;
  moe_intermediate_size: number;
  moe_layer_freq: number;
  first_k_dense_replace: number;
  norm_topk_prob: boolean;
  routed_scaling_factor: number;
  n_group: number;
  topk_group: number;
  /** Of models with an indexer. */
  index_head_dim: number;
  indexer_types?: readonly ("full" | "shared")[];
}

/** What `expert_gating_func` says of the scores of experts. */
export const gating = { softmax: 1, sigmoid: 2, sqrtsoftplus: 4 };

/** llama.cpp's way to know the models whose queries are projected at once: their number of layers. */
const projectsAtOnce = ({ num_hidden_layers: layers, vocab_size: words }: LatentHeads) =>
  layers === 26 || layers === 27 || (layers === 48 && words === 128_256);

/** A factor on the scores that grows with the stretch: files have it with YaRN's own tenth. */
const tenth = 0.1;

interface IndexerFacts {
  /** Its pairs of features are neighbours, not halves of a head. */
  turnsNeighbours: boolean;
  /** Layers may take the choice of an earlier one. */
  mayShare?: boolean;
}

/** llama.cpp takes models of longer contexts for GLM 5.2, where files do not say which layers share. */
const longestUnshared = 2 ** 20;

/** Those of GLM 5.2 that choose tokens: the first two, and each fourth from the third on. */
const choosesUsually = (index: number) => index < 2 || index % 4 === 2;

const indexerTypes = { true: "full", false: "shared" } as const;

/** Which layers choose tokens, and which take the choice of an earlier one. */
function readSharing(file: GgufDescription, layers: number) {
  const said = file.list("attention.indexer.types");
  const isLong = file.need("context_length") >= longestUnshared;
  const chooses = (index: number) => (said ? said[index] !== 0 : !isLong || choosesUsually(index));
  return { indexer_types: Array.from({ length: layers }, (_, index) => indexerTypes[`${chooses(index)}`]) };
}

/** llama.cpp rotates an indexer's heads by a Hadamard matrix, which must have their width. */
export function checkIndexerWidth(dims: number): void {
  if (dims < 64 || !Number.isInteger(Math.log2(dims))) noPlace(`"index_head_dim" ${dims} (no power of two from 64 on)`);
}

function writeIndexer(indexer: IndexerFacts, args: LatentConfig, positions: number): GgufFields {
  const { index_head_dim: dims, indexer_types: types = [], num_hidden_layers: layers } = args;
  checkIndexerWidth(dims);
  if (!indexer.mayShare || (positions < longestUnshared && !types.includes("shared"))) return {};
  const full = Array.from({ length: layers }, (_, index) => types[index] !== "shared");
  return { "attention.indexer.types": flag(full) };
}

/** What differs from DeepSeek V3. */
export interface LatentFacts {
  /** Its name in files, where it is another. */
  architecture?: string;
  /** Weights of experts by a softmax are made to sum to one where the configuration says so. */
  normalizes?: boolean;
  matches?: (file: GgufDescription) => boolean;
  scores?: keyof typeof gating;
  ropeBase?: number;
  /** What stands before the names of the checkpoint. */
  prefix?: string;
  /** Keys and values are unpacked by one projection. */
  joins?: boolean;
  /** Attention sees what an indexer chooses. */
  indexer?: IndexerFacts;
}

export const latent = (own: LatentFacts = {}): GgufFacts =>
  decoder(own.architecture ?? "deepseek2", {
    names: new TensorNames(own.indexer ? { ...latentDecoderLayer, ...indexerLayer } : latentDecoderLayer, {
      parameters: own.scores === "softmax" ? {} : { "exp_probs_b.bias": "mlp.gate.e_score_correction_bias" },
      halves: fusedExperts("mlp"),
      prefix: own.prefix,
    }),
    matches: own.matches,
    ropeBase: own.ropeBase,
    integers: own.indexer ? indexerFields : {},
    only: own.indexer ? { indexer_rope_interleave: own.indexer.turnsNeighbours } : {},
    joined: own.joins ? joinedKeysValues : undefined,
    turning: (settings) => (settings as unknown as LatentConfig).qk_rope_head_dim,
    read(file, common) {
      const groups = file.number("expert_group_count") ?? 0;
      return {
        ...readHeads(file, common),
        num_experts_per_tok: file.need("expert_used_count"),
        rope_scaling: readStretch(file, common.rope_scaling as object | undefined),
        first_k_dense_replace: file.number("leading_dense_block_count") ?? 0,
        n_routed_experts: file.need("expert_count"),
        n_shared_experts: file.need("expert_shared_count"),
        moe_intermediate_size: file.need("expert_feed_forward_length"),
        routed_scaling_factor: file.number("expert_weights_scale") ?? 1,
        norm_topk_prob: normalizes(file),
        n_group: Math.max(groups, 1),
        topk_group: groups > 1 ? file.need("expert_group_used_count") : 1,
        ...methods(own.scores, groups),
        ...(own.indexer?.mayShare ? readSharing(file, common.num_hidden_layers as number) : {}),
        moe_layer_freq: 1,
      };
    },
    write(settings) {
      const args = settings as unknown as LatentConfig;
      const { n_routed_experts: experts, n_shared_experts: shared } = args;
      if (args.moe_layer_freq !== 1) noPlace(`"moe_layer_freq" ${args.moe_layer_freq} (not 1)`);
      if (!experts) noPlace("a model without routed experts");
      if (!shared) noPlace("experts without a shared one");
      const grouped = args.n_group > 1 && args.topk_group < args.n_group;
      if (grouped && own.scores === "softmax") noPlace('"topk_method" "group_limited_greedy"');
      return {
        ...writeHeads(args),
        leading_dense_block_count: u32(args.first_k_dense_replace),
        expert_count: u32(experts),
        expert_used_count: u32(args.num_experts_per_tok),
        expert_shared_count: u32(shared),
        expert_feed_forward_length: u32(args.moe_intermediate_size),
        expert_weights_scale: f32(args.routed_scaling_factor),
        expert_weights_norm: flag((own.scores !== "softmax" || own.normalizes === true) && args.norm_topk_prob),
        expert_gating_func: u32(gating[own.scores ?? "sigmoid"]),
        expert_group_count: grouped ? u32(args.n_group) : undefined,
        expert_group_used_count: grouped ? u32(args.topk_group) : undefined,
        ...writeStretch(ropeOptions(args, { base: 10_000 }).scaling),
        ...(own.indexer ? writeIndexer(own.indexer, args, settings.max_position_embeddings) : {}),
      };
    },
  });

/** The sizes of latent attention. */
export function readHeads(file: GgufDescription, { num_attention_heads }: Readonly<Record<string, unknown>>) {
  const turning = file.need("rope.dimension_count");
  return {
    head_dim: undefined,
    partial_rotary_factor: undefined,
    num_key_value_heads: num_attention_heads,
    kv_lora_rank: file.need("attention.kv_lora_rank"),
    q_lora_rank: file.number("attention.q_lora_rank") ?? null,
    qk_rope_head_dim: turning,
    qk_nope_head_dim: width(file, "key") - turning,
    v_head_dim: width(file, "value"),
  };
}

/** The other way round. Attention is written as that of one key, whose width is that of what is kept of a token. */
export function writeHeads(args: LatentHeads): GgufFields {
  const { kv_lora_rank: rank, qk_rope_head_dim: turning, q_lora_rank: queryRank } = args;
  if (args.attention_bias) noPlace('"attention_bias"');
  if (queryRank === null && !projectsAtOnce(args)) noPlace('"q_lora_rank" null with so many layers');
  return {
    vocab_size: u32(args.vocab_size),
    "attention.head_count_kv": u32(1),
    "attention.kv_lora_rank": u32(rank),
    "attention.q_lora_rank": queryRank === null ? undefined : u32(queryRank),
    "attention.key_length": u32(rank + turning),
    "attention.value_length": u32(rank),
    "attention.key_length_mla": u32(args.qk_nope_head_dim + turning),
    "attention.value_length_mla": u32(args.v_head_dim),
  };
}

const methods = (scores: keyof typeof gating = "sigmoid", groups: number) => ({
  scoring_func: scores,
  topk_method: scores === "sigmoid" ? "noaux_tc" : groups > 1 ? "group_limited_greedy" : "greedy",
});

/** Whether the weights of a token's experts are made to sum to one. */
export const normalizes = (file: GgufDescription): boolean => (file.list("expert_weights_norm")?.[0] ?? 0) !== 0;

/** The two halves of the projection that unpacks keys and values; files have the keys' transposed. */
export function joinedKeysValues(config: object): JoinedTensors {
  const { num_attention_heads: heads, qk_nope_head_dim: width, kv_lora_rank: rank } = config as LatentHeads;
  return {
    "self_attn.kv_b_proj": {
      parts: ["attn_k_b", "attn_v_b"],
      join: ([keys, values]) => mx.concatenate([keys!.swapaxes(-1, -2), values!], { axis: 1 }).reshape(-1, rank),
      split(x) {
        const [keys, values] = x.reshape(heads, -1, rank).split([width], 1) as [Tensor, Tensor];
        return [keys.swapaxes(-1, -2), values];
      },
    },
  };
}

/** Width of a head's keys or values, unpacked. */
const width = (file: GgufDescription, of: "key" | "value") =>
  file.number(`attention.${of}_length_mla`) ?? file.need(`attention.${of}_length`);

/** The two factors of YaRN on latent attention, which files have as one. */
function readStretch(file: GgufDescription, scaling: object | undefined): object | undefined {
  const weight = file.number("rope.scaling.yarn_log_multiplier");
  if (!scaling || weight === undefined) return scaling;
  const mscale = Number((weight / tenth).toPrecision(6));
  return { ...scaling, mscale, mscale_all_dim: mscale };
}

function writeStretch(scaling: RopeScaling | null | undefined): GgufFields {
  const type = scaling?.type || scaling?.rope_type;
  if (type !== "yarn" && type !== "deepseek_yarn") return {};
  const { mscale, mscale_all_dim: weight } = scaling!;
  if (!weight || (mscale ?? 1) !== weight) {
    noPlace(`"mscale" ${mscale} of yarn beside "mscale_all_dim" ${weight} (not the same)`);
  }
  return {
    "rope.scaling.yarn_log_multiplier": f32(tenth * weight!),
    // The factors cancel out.
    "rope.scaling.attn_factor": f32(1),
  };
}
