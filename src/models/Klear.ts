/** Klear: Qwen 3's attention, and experts by sigmoids, weighed against a shared one by a softmax over two scores of the token. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  GatedMLP,
  highestOfSigmoid,
  type Layer,
  Linear,
  Module,
  mixExperts,
  parameter,
  RMSNorm,
  SwitchGLU,
  stackExperts,
} from "../nn";
import { checkExperts, checkHeads, count, denseFields, ropeOf, size } from "./args";
import { type AwqFacts, blockAwq } from "./awq-facts";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    attention_bias: z.boolean(),
    mlp_only_layers: z.array(count),
    num_experts: count,
    num_experts_per_tok: size,
    decoder_sparse_step: size,
    n_shared_experts: size,
    moe_intermediate_size: size,
    norm_topk_prob: z.boolean(),
  })
  .superRefine(checkHeads)
  .superRefine(checkExperts("num_experts_per_tok", "num_experts"));

type Args = z.infer<typeof Args>;

class Attention extends llama.Attention {
  q_norm: RMSNorm;
  k_norm: RMSNorm;

  constructor(args: Args) {
    super(args, { rope: ropeOf({ ...args, rope_traditional: false }) });
    this.q_norm = new RMSNorm(this.headDim, args.rms_norm_eps);
    this.k_norm = new RMSNorm(this.headDim, args.rms_norm_eps);
  }
}

class MoE extends Module {
  gate: Layer;
  experts: SwitchGLU;
  shared_experts: GatedMLP;
  /** Two scores: of the experts' result, and of the shared one's. */
  coefficient: Layer;
  /** Only takes part in the choice, (experts). */
  expert_bias: Tensor;

  constructor(readonly args: Args) {
    super();
    const { hidden_size: dims, moe_intermediate_size: hidden, num_experts: experts } = args;
    this.gate = new Linear(dims, experts, { bias: false });
    this.experts = new SwitchGLU(dims, hidden, experts);
    this.shared_experts = new GatedMLP(dims, hidden * args.n_shared_experts);
    this.coefficient = new Linear(dims, 2);
    this.expert_bias = parameter(mx.zeros([experts]));
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const { num_experts_per_tok: expertsPerToken, norm_topk_prob: normalize } = this.args;
    const routing = highestOfSigmoid(this.gate.forward(x), this.expert_bias, { expertsPerToken, normalize });
    const mixed = mixExperts(x, this.experts, { ...routing, weights: routing.weights.astype(x.dtype) });
    const shares = mx.softmax(this.coefficient.forward(x), { axis: -1, precise: true });
    const [own, shared] = shares.split(2, -1) as [Tensor, Tensor];
    return mixed.multiply(own).add(this.shared_experts.forward(x).multiply(shared));
  }
}

export class Model extends CausalLM {
  readonly #experts: number;

  constructor(args: Args) {
    super({ ...args, tie_word_embeddings: false }, (index) => {
      const isSparse = args.num_experts > 0 && !args.mlp_only_layers.includes(index);
      const mlp =
        isSparse && (index + 1) % args.decoder_sparse_step === 0
          ? new MoE(args)
          : new GatedMLP(args.hidden_size, args.intermediate_size);
      return new llama.Block(new Attention(args), mlp, args);
    });
    this.#experts = args.num_experts;
  }

  /** Stacks the experts, which the original checkpoints have one by one. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    for (const layer of this.layers.keys()) {
      const experts = `model.layers.${layer}.mlp.experts`;
      stackExperts(sanitized, { count: this.#experts, from: experts, to: experts });
    }
    return sanitized;
  }
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("mlp.gate") ? { groupSize: 64, bits: 8 } : undefined);

/** The bias of the routing is learned in float32, and small. */
export const keepsDtype = (path: string) => path.endsWith("expert_bias");

const usual = blockAwq();

/** The scores of the two results come from what the experts get. */
export const awq: AwqFacts = {
  ...usual,
  groups: usual.groups.map((group) =>
    group.part === "mlp" ? { ...group, layers: [...group.layers, "mlp.coefficient"] } : group,
  ),
};
