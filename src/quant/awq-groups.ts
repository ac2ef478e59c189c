/**
 * Where AWQ may move scale within a block, by model type: what makes a group of layers' inputs is divided by the
 * factors that the layers' columns are multiplied by, so that the block computes the same. Lin et al. 2023,
 * arXiv:2306.00978.
 */
import { ExitCode, UserError } from "../errors";
import { nearest } from "../nearest";

/** Layers that share their input. A group whose parts a block lacks is passed over there. */
export interface ScaleGroup {
  /** Path, within the block, of the norm or the linear layer that makes the input. */
  before: string;
  /** Paths of those that take it. What is no linear layer is scaled, and never packed. */
  layers: readonly string[];
  /** The part of the block whose output judges the factors; the one layer's own output unless given. */
  part?: string;
}

/** What AWQ knows of a model type. */
export interface Plan {
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

const down = (mlp: string): ScaleGroup => ({ before: `${mlp}.up_proj`, layers: [`${mlp}.down_proj`] });

const gated = (before: string): ScaleGroup => ({ before, layers: ["mlp.gate_proj", "mlp.up_proj"], part: "mlp" });

const llama: Plan = {
  noClip: ["q_proj", "k_proj"],
  groups: [attention, down("mlp"), gated("post_attention_layernorm")],
};

const gemma3: Plan = { ...llama, groups: [attention, down("mlp"), gated("pre_feedforward_layernorm")] };

/** Layers of experts, of a name, beside which there may be a shared one. */
const experts = (mlp: string): ScaleGroup => ({
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

const mixtral: Plan = {
  noClip: llama.noClip,
  groups: [attention, down("block_sparse_moe.switch_mlp"), experts("block_sparse_moe")],
};

const deepseek2: Plan = {
  noClip: ["q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"],
  groups: [
    {
      before: "input_layernorm",
      layers: ["self_attn.q_proj", "self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"],
      part: "self_attn",
    },
    { before: "self_attn.kv_a_layernorm", layers: ["self_attn.kv_b_proj"] },
    down("mlp"),
    down("mlp.shared_experts"),
    down("mlp.switch_mlp"),
    gated("post_attention_layernorm"),
    experts("mlp"),
  ],
};

const inner = "language_model";

const plans: Record<string, Plan> = {
  llama,
  mistral: llama,
  ministral3: llama,
  mistral3: { ...llama, inner },
  llava: { ...llama, inner },
  qwen2: llama,
  qwen3: llama,
  gemma3_text: gemma3,
  gemma3: { ...gemma3, inner },
  deepseek_v2: deepseek2,
  mixtral,
};

/** @throws UserError for a model type that AWQ has no plan for */
export function planFor(modelType: unknown): Plan {
  const known = Object.keys(plans);
  if (typeof modelType === "string" && Object.hasOwn(plans, modelType)) return plans[modelType]!;
  const [similar] = typeof modelType === "string" ? nearest(modelType, known, 1) : [];
  throw new UserError(`AWQ does not know models of type ${JSON.stringify(modelType) ?? "unknown"}`, {
    code: ExitCode.notFound,
    hint: `It knows ${known.join(", ")}.${similar ? ` Did you mean ${similar}?` : ""} For others: mlxlm gptq or mlxlm dwq`,
  });
}
