/**
 * Where AWQ may move scale within a block of an architecture: what makes a group of layers' inputs is divided by the factors
 * that the layers' columns are multiplied by, so that the block computes the same. Lin et al. 2023, arXiv:2306.00978.
 */

/** Layers that share their input. A group whose parts a block lacks is passed over there. */
export interface ScaleGroup {
  /** Path, within the block, of the norm or the linear layer that makes the input. */
  before: string;
  /** Paths of those that take it. What is no linear layer is scaled, and never packed. */
  layers: readonly string[];
  /** The part of the block whose output judges the factors; the one layer's own output unless given. */
  part?: string;
}

/** What AWQ needs to know of an architecture. */
export interface AwqFacts {
  /** The module with the language model, where the model has others too. */
  inner?: string;
  /** Parts of layers' names whose weights are not clipped: errors of scores grow with the queries and keys. */
  noClip: readonly string[];
  groups: readonly ScaleGroup[];
}

const attention: ScaleGroup = {
  before: "input_layernorm",
  layers: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
  part: "self_attn",
};

const noClip = ["q_proj", "k_proj"];

/** The last projection of a feed-forward block, of a path. */
export const downGroup = (mlp: string): ScaleGroup => ({ before: `${mlp}.up_proj`, layers: [`${mlp}.down_proj`] });

/** The first two of a block that is named `mlp`, behind the norm `before`. */
export const gatedGroup = (before: string): ScaleGroup => ({
  before,
  layers: ["mlp.gate_proj", "mlp.up_proj"],
  part: "mlp",
});

/** Layers of experts, of a path, beside which there may be a shared one. */
export const expertsGroup = (mlp: string): ScaleGroup => ({
  before: "post_attention_layernorm",
  layers: [
    "switch_mlp.gate_proj",
    "switch_mlp.up_proj",
    "shared_experts.gate_proj",
    "shared_experts.up_proj",
    "gate",
  ].map((name) => `${mlp}.${name}`),
  part: mlp,
});

/** Grouped-query attention and a gated feed-forward block behind the norm `before`. */
export const denseAwq = ({ before = "post_attention_layernorm" } = {}): AwqFacts => ({
  noClip,
  groups: [attention, downGroup("mlp"), gatedGroup(before)],
});

/** Grouped-query attention and experts at the path `mlp`. */
export const expertsAwq = (mlp: string): AwqFacts => ({
  noClip,
  groups: [attention, downGroup(`${mlp}.switch_mlp`), expertsGroup(mlp)],
});

/** How blocks of an architecture call their parts, where it is not as most do. */
export interface BlockNames {
  inner?: string;
  /** The parts that look at other tokens, of which a block has one, and the norm ahead of it. */
  attention?: string | readonly string[];
  attentionNorm?: string;
  /** The feed-forward block or experts, and the norm ahead of it. */
  mlp?: string;
  mlpNorm?: string;
  /** What has the weight that experts are chosen by, within the feed-forward part. */
  router?: string;
  /** Whether the value beside a gate passes to the last projection as it is: not where it is clipped. */
  isLinear?: boolean;
}

/** Whatever takes hidden states in attention, full or latent, in layers with a state, and in indexers. */
const attentionInputs = [
  ...["q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "g_proj", "gate_proj"],
  ...["q_a_proj", "kv_a_proj_with_mqa", "indexer.wk", "indexer.weights_proj", "index_q_proj", "index_k_proj"],
  ...["b_proj", "f_proj", "f_a_proj", "g_a_proj", "in_proj", "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"],
  ...["in_proj_qkvz", "in_proj_ba"],
];

/** Whatever takes them in a feed-forward block and in experts, but routers. */
const feedForwardInputs = [
  ...["gate_proj", "up_proj", "gate_up_proj", "input_linear"],
  ...["switch_mlp.gate_proj", "switch_mlp.up_proj", "experts.gate_proj", "experts.up_proj"],
  ...["shared_experts", "shared_expert", "share_expert"].flatMap((one) => [`${one}.gate_proj`, `${one}.up_proj`]),
  "shared_expert_gate",
];

/**
 * Pre-norm blocks of attention, full or latent, or of layers with a state, and a gated feed-forward block or experts.
 */
export function blockAwq(names: BlockNames = {}): AwqFacts {
  const { inner, attention = "self_attn", attentionNorm = "input_layernorm", isLinear = true } = names;
  const { mlp = "mlp", mlpNorm = "post_attention_layernorm", router = "gate" } = names;
  const within = (path: string, parts: readonly string[]) => parts.map((name) => `${path}.${name}`);
  const mixing = [attention].flat().flatMap((part) => [
    { before: attentionNorm, layers: within(part, attentionInputs), part },
    { before: `${part}.q_a_layernorm`, layers: within(part, ["q_b_proj", "indexer.wq_b"]) },
    { before: `${part}.kv_a_layernorm`, layers: within(part, ["kv_b_proj"]) },
  ]);
  const holders = [mlp, ...within(mlp, ["switch_mlp", "experts", "shared_experts", "shared_expert", "share_expert"])];
  return {
    inner,
    noClip: [
      "q_proj",
      "k_proj",
      "qkv_proj",
      "query_key_value",
      "q_a_proj",
      "q_b_proj",
      "kv_a_proj",
      "kv_b_proj",
      "index",
    ],
    groups: [
      ...mixing,
      ...(isLinear ? holders.map(downGroup) : []),
      { before: mlpNorm, layers: within(mlp, [...feedForwardInputs, router]), part: mlp },
    ],
  };
}
