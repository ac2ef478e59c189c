/** LFM 2's mixture of experts: LFM 2 whose feed-forward blocks, but the first few, are experts behind sigmoids. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { GatedMLP, type Layer, Linear, Module, mixExperts, parameter, SwitchGLU, stackExperts } from "../nn";
import { checkExperts, checkHeads, size } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { gating } from "./gguf/deepseek2";
import { u32 } from "./gguf/facts";
import { expertLayer, TensorNames } from "./gguf/names";
import { checkLayers, embeddingNorm, hybridFields, mixingLayer, ShortConvLM, shortConv } from "./lfm2";

export const Args = z
  .object({
    ...hybridFields,
    intermediate_size: size,
    moe_intermediate_size: size,
    num_experts: size,
    num_experts_per_tok: size,
    norm_topk_prob: z.boolean(),
    use_expert_bias: z.boolean(),
    routed_scaling_factor: z.number().default(1),
    num_dense_layers: z.int().nonnegative(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayers)
  .superRefine(checkExperts("num_experts_per_tok", "num_experts"));

type Args = z.infer<typeof Args>;

class SparseMoeBlock extends Module {
  gate: Layer;
  switch_mlp: SwitchGLU;
  /** Takes part in the choice of experts alone, (E). */
  expert_bias?: Tensor;
  readonly expertsPerToken: number;
  readonly normalize: boolean;
  readonly scale: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D, num_experts: experts } = args;
    this.gate = new Linear(D, experts, { bias: false });
    this.switch_mlp = new SwitchGLU(D, args.moe_intermediate_size, experts);
    if (args.use_expert_bias) this.expert_bias = parameter(mx.zeros([experts]));
    this.expertsPerToken = args.num_experts_per_tok;
    this.normalize = args.norm_topk_prob;
    this.scale = args.routed_scaling_factor;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const k = this.expertsPerToken;
    const scores = this.gate.forward(x).sigmoid();
    const choice = this.expert_bias ? scores.astype("float32").add(this.expert_bias) : scores;
    const order = mx.argpartition(choice, -k, { axis: -1 });
    const experts = mx.stopGradient(order.at(mx.ellipsis, mx.slice(-k)));
    const chosen = scores.takeAlongAxis(experts, -1);
    const summed = this.normalize ? chosen.divide(chosen.sum({ axis: -1, keepdims: true }).add(1e-6)) : chosen;
    return mixExperts(x, this.switch_mlp, { experts, weights: summed.multiply(this.scale).astype(x.dtype) });
  }
}

/** The names that checkpoints give the projections, by ours. */
const names = { gate_proj: "w1", down_proj: "w2", up_proj: "w3" };

export class Model extends ShortConvLM {
  readonly experts: number;

  constructor(args: Args) {
    const dense = () => new GatedMLP(args.hidden_size, args.intermediate_size);
    super(args, (index) => (index < args.num_dense_layers ? dense() : new SparseMoeBlock(args)));
    this.experts = args.num_experts;
  }

  /** Stacks the experts, which the original checkpoints have one by one, and names the projections of dense blocks. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    for (const layer of this.layers.keys()) {
      const block = `model.layers.${layer}.feed_forward`;
      stackExperts(sanitized, { count: this.experts, from: `${block}.experts`, to: `${block}.switch_mlp`, names });
      for (const [ours, theirs] of Object.entries(names)) {
        const dense = sanitized.get(`${block}.${theirs}.weight`);
        if (!dense) continue;
        sanitized.delete(`${block}.${theirs}.weight`);
        sanitized.set(`${block}.${ours}.weight`, dense);
      }
    }
    return sanitized;
  }
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("feed_forward.gate") ? { groupSize: 64, bits: 8 } : undefined);

/** What evens the experts' load stays in float32. */
export const keepsDtype = (path: string): boolean => path.endsWith("expert_bias");

export const gguf = decoder("lfm2moe", {
  ...shortConv,
  names: new TensorNames(
    {
      ...mixingLayer,
      ...expertLayer("feed_forward"),
      ffn_gate: "feed_forward.gate_proj",
      ffn_up: "feed_forward.up_proj",
      ffn_down: "feed_forward.down_proj",
    },
    { outer: embeddingNorm, parameters: { "exp_probs_b.bias": "feed_forward.expert_bias" } },
  ),
  integers: {
    ...shortConv.integers,
    expert_count: "num_experts",
    expert_used_count: "num_experts_per_tok",
    expert_feed_forward_length: "moe_intermediate_size",
    leading_dense_block_count: "num_dense_layers",
  },
  only: { conv_bias: false, norm_topk_prob: true, use_expert_bias: true, routed_scaling_factor: 1 },
  write: (settings) => ({ ...shortConv.write(settings), expert_gating_func: u32(gating.sigmoid) }),
});

export const awq = blockAwq({
  attention: ["self_attn", "conv"],
  attentionNorm: "operator_norm",
  mlp: "feed_forward",
  mlpNorm: "ffn_norm",
});
