/** nanochat: norms without a gain, also behind the embedding and on queries and keys; squared ReLU; capped logits. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  type DecoderLayer,
  divideHeads,
  FrequencyRoPE,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  NamedMLP,
  type Norm,
  project,
  type Residual,
  type Split,
  splitHeads,
  squaredRelu,
  yarnFrequencies,
} from "../nn";
import { checkHeads, headsOf, size } from "./args";
import { names } from "./gpt2";
import { NamedLM } from "./named-lm";

export const Args = z
  .object({
    hidden_size: size.default(1280),
    num_hidden_layers: size.default(20),
    num_attention_heads: size.default(10),
    num_key_value_heads: size.default(10),
    vocab_size: size.default(65_536),
    intermediate_size: size.default(5120),
    rope_theta: z.number().positive().default(10_000),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

const normed = (x: Tensor): Tensor => mx.fast.rmsNorm(x, null, 1e-5);

/** RMSNorm without a gain. */
class PlainNorm extends Module implements Norm {
  forward(x: Tensor): Tensor {
    return normed(x);
  }
}

class Attention extends Module {
  c_q: Layer;
  c_k: Layer;
  c_v: Layer;
  c_proj: Layer;
  /** Turns the other way round than most. */
  readonly _rope: FrequencyRoPE;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D, rope_theta: base } = args;
    const { heads, kvHeads, headDim } = headsOf(args);
    this.c_q = new Linear(D, heads * headDim, { bias: false });
    this.c_k = new Linear(D, kvHeads * headDim, { bias: false });
    this.c_v = new Linear(D, kvHeads * headDim, { bias: false });
    this.c_proj = new Linear(heads * headDim, D, { bias: false });
    this._rope = new FrequencyRoPE(headDim, () => yarnFrequencies(headDim, base, { factor: 1 }).negative());
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [queries, keys, values] = project(x, [this.c_q, this.c_k, this.c_v]) as [Tensor, Tensor, Tensor];
    const offset = cache?.offset ?? 0;
    const placed = (part: Tensor, heads: number) => normed(this._rope.forward(splitHeads(part, heads), offset));
    const [q, k] = [placed(queries, this.heads), placed(keys, this.kvHeads)];
    const out = attention(q, k, splitHeads(values, this.kvHeads), { scale: this.scale, mask, cache });
    return this.c_proj.forward(joinHeads(out));
  }

  shard(split: Split): void {
    divideHeads(this, split, { names: ["c_q", "c_k", "c_v", "c_proj"] });
  }
}

const plainNorm = new PlainNorm();

class Block extends Module implements DecoderLayer {
  attn: Attention;
  mlp: NamedMLP;

  constructor(args: Args) {
    super();
    const options = { names: { up: "c_fc", down: "c_proj" }, bias: false, activation: squaredRelu };
    this.attn = new Attention(args);
    this.mlp = new NamedMLP(args.hidden_size, args.intermediate_size, options);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.attn.forward(x.branch(plainNorm), mask, cache));
    return h.plus(this.mlp.forward(h.branch(plainNorm)));
  }
}

const cap = 15;

export class Model extends NamedLM {
  constructor(args: Args) {
    const { hidden_size: dims, vocab_size: vocab, num_hidden_layers: layers } = args;
    const adjustLogits = (logits: Tensor) => logits.divide(cap).tanh().multiply(cap);
    super(
      { dims, vocab, layers, tied: false, adjustEmbeddings: normed, adjustLogits },
      { ...names, trunk: "transformer" },
      () => new Block(args),
      new PlainNorm(),
    );
  }
}

export const joins = [["c_q", "c_k", "c_v"]];
