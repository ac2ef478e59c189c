/** Apertus: Qwen 3's attention, and xIELU in place of a gate: an activation with two learned slopes for each layer. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type DecoderLayer,
  divideInner,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  parameter,
  type Residual,
  RMSNorm,
  type Split,
} from "../nn";
import { checkHeads, denseFields, ropeOf, size } from "./args";
import { decoder } from "./gguf/decoder";
import { plainLayer, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import { Attention } from "./qwen3";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    max_position_embeddings: size,
    mlp_bias: z.boolean(),
    post_norm: z.literal(false).default(false),
    qk_norm: z.literal(true).default(true),
    tie_word_embeddings: z.boolean(),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

const softplus = (x: Tensor): Tensor => mx.logaddexp(x, 0);

/** αₚ x² + β x where x > 0, else αₙ (eᶜ − 1 − x) + β x, c the lesser of x and ε. Huang & Schlag 2024, arXiv:2411.13010. */
const xielu = mx.compile(
  (x: Tensor, positive: Tensor, negative: Tensor, beta: Tensor, eps: Tensor) => {
    const above = softplus(positive).multiply(x.square()).add(x.multiply(beta));
    const slope = beta.add(softplus(negative));
    const below = mx.expm1(x.minimum(eps)).subtract(x).multiply(slope).add(x.multiply(beta));
    return mx.where(x.greater(0), above, below);
  },
  { shapeless: true },
);

class XieLU extends Module {
  /** One number each. */
  alpha_p: Tensor;
  alpha_n: Tensor;
  beta: Tensor;
  eps: Tensor;

  constructor() {
    super();
    const inverse = (value: number) => parameter(mx.array(Math.log(Math.expm1(value)), "float32"));
    this.alpha_p = inverse(0.8);
    this.alpha_n = inverse(0.8 - 0.5);
    this.beta = parameter(mx.array(0.5, "float32"));
    this.eps = parameter(mx.array(-1e-6, "float32"));
  }

  forward(x: Tensor): Tensor {
    return xielu(x, this.alpha_p, this.alpha_n, this.beta, this.eps);
  }
}

class MLP extends Module {
  up_proj: Layer;
  down_proj: Layer;
  act_fn: XieLU;

  constructor({ hidden_size: dims, intermediate_size: hidden, mlp_bias: bias }: Args) {
    super();
    this.up_proj = new Linear(dims, hidden, { bias });
    this.down_proj = new Linear(hidden, dims, { bias });
    this.act_fn = new XieLU();
  }

  forward(x: Tensor): Tensor {
    return this.down_proj.forward(this.act_fn.forward(this.up_proj.forward(x)));
  }

  shard(split: Split): void {
    this.down_proj = divideInner(this.down_proj, [this.up_proj], split);
  }
}

class Block extends Module implements DecoderLayer {
  self_attn: Attention;
  mlp: MLP;
  attention_layernorm: RMSNorm;
  feedforward_layernorm: RMSNorm;

  constructor(args: Args) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    this.self_attn = new Attention(args, { rope: ropeOf(args) });
    this.mlp = new MLP(args);
    this.attention_layernorm = new RMSNorm(D, eps);
    this.feedforward_layernorm = new RMSNorm(D, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.self_attn.forward(x.branch(this.attention_layernorm), mask, cache));
    return h.plus(this.mlp.forward(h.branch(this.feedforward_layernorm)));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    super(args, () => new Block(args));
  }

  /** Slopes are numbers here, and lists of one in checkpoints. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const own = ([name, weight]: [string, Tensor]): [string, Tensor] =>
      /\.act_fn\.(alpha_p|alpha_n|beta|eps)$/.test(name) ? [name, weight.reshape([])] : [name, weight];
    return new Map([...super.sanitize(weights)].map(own));
  }
}

const { ffn_gate: _, ...ungated } = plainLayer as Record<"ffn_gate", string>;

export const gguf = decoder("apertus", {
  names: new TensorNames({ ...ungated, attn_norm: "attention_layernorm", ffn_norm: "feedforward_layernorm" }),
  layerNumbers: {
    "xielu.alpha_p": "mlp.act_fn.alpha_p",
    "xielu.alpha_n": "mlp.act_fn.alpha_n",
    "xielu.beta": "mlp.act_fn.beta",
    "xielu.eps": "mlp.act_fn.eps",
  },
  only: { mlp_bias: false, rope_traditional: false, tie_word_embeddings: false },
});
