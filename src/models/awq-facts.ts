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
