/**
 * ERNIE 4.5 (mixture of experts): ERNIE 4.5 with experts, and one that all tokens use, from some layer on. A bias on the
 * probabilities takes part in the choice of experts, which mlx-lm leaves out and its checkpoints lack.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { GatedMLP, type Layer, Linear, Module, mixExperts, parameter, SwitchGLU, stackExperts } from "../nn";
import { checkExperts, checkHeads, count, denseFields, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import type { TensorChange } from "./gguf/changes";
import { decoder } from "./gguf/decoder";
import { u32 } from "./gguf/facts";
import { expertLayer, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";
import { draftTensors, type MtpFacts } from "./mtp/facts";
import { LayeredHead } from "./mtp/layered-head";

/** A number of a layer, or one for each of several modalities. */
const LayerIndex = z.union([z.int(), z.array(z.int()).nonempty()]);

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    max_position_embeddings: size,
    use_bias: z.boolean(),
    tie_word_embeddings: z.boolean(),
    moe_num_experts: size,
    moe_k: size.default(1),
    moe_intermediate_size: count.default(0),
    moe_num_shared_experts: count.default(0),
    /** The first and the last layer with experts, and every how many there are some. */
    moe_layer_start_index: LayerIndex.default(0),
    moe_layer_end_index: LayerIndex.nullish(),
    moe_layer_interval: size.default(1),
    moe_gate_act: z.enum(["softmax", "sigmoid"]).default("softmax"),
  })
  .superRefine(checkHeads)
  .superRefine(checkExperts("moe_k", "moe_num_experts"));

type Args = z.infer<typeof Args>;

class Statistics extends Module {
  /** (1, E), float32 */
  e_score_correction_bias: Tensor;

  constructor(experts: number) {
    super();
    this.e_score_correction_bias = parameter(mx.zeros([1, experts]));
  }
}

class SparseMoeBlock extends Module {
  gate: Layer;
  switch_mlp: SwitchGLU;
  shared_experts?: GatedMLP;
  moe_statics: Statistics;
  readonly expertsPerToken: number;
  readonly activation: "softmax" | "sigmoid";

  constructor(args: Args) {
    super();
    const { hidden_size: D, moe_num_experts: experts, use_bias: bias } = args;
    const hiddenDims = args.moe_intermediate_size || args.intermediate_size;
    this.gate = new Linear(D, experts, { bias: false });
    this.switch_mlp = new SwitchGLU(D, hiddenDims, experts, { bias });
    if (args.moe_num_shared_experts > 0) {
      this.shared_experts = new GatedMLP(D, hiddenDims * args.moe_num_shared_experts, { bias });
    }
    this.moe_statics = new Statistics(experts);
    this.expertsPerToken = args.moe_k;
    this.activation = args.moe_gate_act;
  }

  /** x (B, T, D) → (B, T, D): the weights of the chosen experts are made to sum to one. */
  forward(x: Tensor): Tensor {
    const k = this.expertsPerToken;
    const logits = this.gate.forward(x).astype("float32");
    const scores = this.activation === "softmax" ? mx.softmax(logits, { axis: -1 }) : logits.sigmoid();
    const choice = scores.add(this.moe_statics.e_score_correction_bias.squeeze(0));
    const order = mx.argpartition(choice.negative(), k - 1, { axis: -1 });
    const experts = mx.stopGradient(order.at(mx.ellipsis, mx.slice(0, k)));
    const chosen = scores.takeAlongAxis(experts, -1);
    const weights = chosen.divide(chosen.sum({ axis: -1, keepdims: true }).maximum(1e-12));
    const mixed = mixExperts(x, this.switch_mlp, { experts, weights }).astype(x.dtype);
    return this.shared_experts ? mixed.add(this.shared_experts.forward(x)) : mixed;
  }
}

function hasExperts(args: Args, index: number): boolean {
  const first = Math.min(...[args.moe_layer_start_index].flat());
  const last = Math.max(...[args.moe_layer_end_index ?? args.num_hidden_layers - 1].flat());
  return (index + 1) % args.moe_layer_interval === 0 && index >= first && index <= last;
}

/** What predicts further tokens is left out. */
const others = ["mtp_block.", "mtp_linear_proj.", "mtp_hidden_norm.", "mtp_emb_norm."];

const attentionOf = (args: Args) =>
  new llama.Attention(
    { ...args, attention_bias: args.use_bias },
    { rope: ropeOf({ ...args, rope_traditional: true }) },
  );

const denseOf = (args: Args) => new GatedMLP(args.hidden_size, args.intermediate_size, { bias: args.use_bias });

export class Model extends CausalLM {
  readonly args: Pick<Args, "moe_num_experts">;

  constructor(args: Args) {
    super(args, (index) => {
      const mlp = hasExperts(args, index) ? new SparseMoeBlock(args) : denseOf(args);
      return new llama.Block(attentionOf(args), mlp, args);
    });
    this.args = args;
  }

  /** Stacks the experts, which the original checkpoints have one by one. A bias that is not there is none. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const kept = [...weights].filter(([name]) => !others.some((other) => name.includes(other)));
    const sanitized = super.sanitize(new Map(kept));
    const count = this.args.moe_num_experts;
    for (const layer of this.layers.keys()) {
      const mlp = `model.layers.${layer}.mlp`;
      stackExperts(sanitized, { count, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
      const bias = `${mlp}.moe_statics.e_score_correction_bias`;
      if (sanitized.has(`${mlp}.gate.weight`) && !sanitized.has(bias)) sanitized.set(bias, mx.zeros([1, count]));
    }
    return sanitized;
  }
}

/**
 * Draft layers are dense. They take the model's hidden states ahead of its last norm, and what they give goes through that norm,
 * as in the code that trains these models (PaddleFormers).
 */
export const mtp: MtpFacts = {
  sanitize: (weights) =>
    draftTensors(weights, (name) => {
      const [, part, index, rest] = /^(mtp_(?:block|emb_norm|hidden_norm|linear_proj))\.(\d+)\.(.+)$/.exec(name) ?? [];
      if (part === undefined) return null;
      return part === "mtp_block" ? `layers.${index}.${rest}` : `layers.${index}.${part}.${rest}`;
    }),
  head(trunk, args: Args, depth) {
    const blocks = Array.from({ length: depth }, () => new llama.Block(attentionOf(args), denseOf(args), args));
    const names = {
      embedding: "mtp_emb_norm",
      hidden: "mtp_hidden_norm",
      projection: "mtp_linear_proj",
      last: "model",
    };
    return new LayeredHead(trunk, blocks, args, { names, takesStream: true });
  },
};

/** What evens the experts' load stays in float32. */
export const keepsDtype = (path: string): boolean => path.endsWith("e_score_correction_bias");

export const awq = blockAwq();

/** (E) in files, (1, E) here. */
const flatRow: TensorChange = { read: (x) => x.expandDims(0), write: (x) => x.squeeze(0) };

export const gguf = decoder("ernie4_5-moe", {
  names: new TensorNames(
    { ...plainLayer, ...expertLayer("mlp"), ...sharedExpert("mlp.shared_experts") },
    { parameters: { "exp_probs_b.bias": "mlp.moe_statics.e_score_correction_bias" } },
  ),
  changes: () => ({ "mlp.moe_statics.e_score_correction_bias": flatRow }),
  integers: {
    expert_count: "moe_num_experts",
    expert_used_count: "moe_k",
    expert_feed_forward_length: "moe_intermediate_size",
    expert_shared_count: "moe_num_shared_experts",
    leading_dense_block_count: "moe_layer_start_index",
    interleave_moe_layer_step: "moe_layer_interval",
  },
  only: { use_bias: false, moe_gate_act: "softmax" },
  write(settings) {
    const args = settings as unknown as Args;
    const last = args.num_hidden_layers - 1;
    const ends = Math.max(...[args.moe_layer_end_index ?? last].flat());
    if (ends < last) noPlace(`"moe_layer_end_index" ${ends} (not ${last})`);
    const [width, shared] = [args.moe_intermediate_size || args.intermediate_size, args.moe_num_shared_experts];
    return {
      leading_dense_block_count: u32(Math.min(...[args.moe_layer_start_index].flat())),
      expert_feed_forward_length: u32(width),
      expert_shared_feed_forward_length: shared > 0 ? u32(width * shared) : undefined,
    };
  },
});
