/** GPT-J: attention without biases and a feed-forward block without a gate side by side on one norm; a part of heads turns. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type DecoderLayer,
  geluApprox,
  type KeyValueCache,
  LayerNorm,
  type Mask,
  Module,
  NamedAttention,
  NamedMLP,
  type Residual,
} from "../nn";
import { size } from "./args";
import { names } from "./gpt2";
import { NamedLM } from "./named-lm";

export const Args = z
  .object({
    n_embd: size.default(4096),
    vocab_size: size.default(50_400),
    layer_norm_epsilon: z.number().positive().default(1e-5),
    n_positions: size.default(2048),
    n_head: size.default(16),
    rotary_dim: size.nullish().default(64),
    n_layer: size.default(28),
    n_inner: size.nullish(),
  })
  .superRefine(({ n_embd: dims, n_head: heads }, context) => {
    if (dims % heads === 0) return;
    context.addIssue({ code: "custom", path: ["n_head"], message: `is ${heads}, but must divide "n_embd" (${dims})` });
  });

type Args = z.infer<typeof Args>;

class Block extends Module implements DecoderLayer {
  ln_1: LayerNorm;
  attn: NamedAttention;
  mlp: NamedMLP;

  constructor({ n_embd: dims, n_head: heads, layer_norm_epsilon, rotary_dim, n_inner }: Args) {
    super();
    const headDim = dims / heads;
    this.ln_1 = new LayerNorm(dims, layer_norm_epsilon);
    this.attn = new NamedAttention({
      ...{ dims, heads, kvHeads: heads, headDim, bias: false },
      rope: { dims: rotary_dim ?? headDim, base: 10_000, traditional: true },
      inputs: ["q_proj", "k_proj", "v_proj"],
      output: "out_proj",
    });
    const options = { names: { up: "fc_in", down: "fc_out" }, bias: true, activation: geluApprox };
    this.mlp = new NamedMLP(dims, n_inner ?? 4 * dims, options);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const normed = x.branch(this.ln_1);
    return x.plus(this.attn.forward(normed, mask, cache).add(this.mlp.forward(normed)));
  }
}

export class Model extends NamedLM {
  constructor(args: Args) {
    const { n_embd: dims, vocab_size: vocab, n_layer: layers, layer_norm_epsilon: eps } = args;
    super(
      { dims, vocab, layers, tied: false, headBias: true },
      { ...names, trunk: "model" },
      () => new Block(args),
      new LayerNorm(dims, eps),
    );
  }

  /** Gives the trunk its name here, and drops masks. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const own = [...super.sanitize(weights)].filter(([name]) => !/\.attn\.(masked_)?bias$/.test(name));
    return new Map(own.map(([name, weight]) => [name.replace(/^transformer\./, "model."), weight]));
  }
}
