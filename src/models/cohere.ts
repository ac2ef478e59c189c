/** Command R: attention and MLP side by side on one LayerNorm; neighbours turn; a factor on the logits. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  divideHeads,
  type HeadShare,
  joinHeads,
  type KeyValueCache,
  LayerNorm,
  type Mask,
  Module,
  parameter,
  project,
  type Split,
  splitHeads,
} from "../nn";
import { checkHeads, ropeFields, ropeOf, size } from "./args";
import { ParallelBlock } from "./cohere2";
import { decoder } from "./gguf/decoder";
import { plainLayer, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    hidden_size: size.default(8192),
    num_hidden_layers: size.default(40),
    intermediate_size: size.default(22_528),
    num_attention_heads: size.default(64),
    num_key_value_heads: size.default(64),
    ...ropeFields,
    vocab_size: size.default(256_000),
    layer_norm_eps: z.number().positive().default(1e-5),
    logit_scale: z.number().default(0.0625),
    attention_bias: z.boolean().default(false),
    layer_norm_bias: z.boolean().default(false),
    use_qk_norm: z.boolean().default(false),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

/** LayerNorm of each head by weights of its own. */
class HeadNorm extends Module {
  /** (H, D) */
  weight: Tensor;

  constructor(
    heads: number,
    dims: number,
    readonly eps: number,
  ) {
    super();
    this.weight = parameter(mx.ones([heads, dims]));
  }

  /** x (B, H, T, D) */
  forward(x: Tensor): Tensor {
    return mx.fast.layerNorm(x, null, null, this.eps).multiply(this.weight.expandDims(1));
  }

  /** Leaves some of the heads. */
  keep([start, end]: HeadShare["queries"]): void {
    this.update([["weight", mx.scope(() => mx.contiguous(mx.sliceAxis(this.weight, 0, start, end)))]]);
  }
}

class Attention extends llama.Attention {
  q_norm?: HeadNorm;
  k_norm?: HeadNorm;

  constructor(args: Args) {
    const rotated = { ...args, rope_traditional: true };
    super(rotated, { rope: ropeOf(rotated, { base: 8_000_000 }) });
    if (!args.use_qk_norm) return;
    this.q_norm = new HeadNorm(this.heads, this.headDim, args.layer_norm_eps);
    this.k_norm = new HeadNorm(this.kvHeads, this.headDim, args.layer_norm_eps);
  }

  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    if (!this.q_norm || !this.k_norm) return super.attend(x, mask, cache);
    const [queries, keys, values] = project(x, [this.q_proj, this.k_proj, this.v_proj]) as [Tensor, Tensor, Tensor];
    const offset = cache?.offset ?? 0;
    const q = this.rope!.forward(this.q_norm.forward(splitHeads(queries, this.heads)), offset);
    const k = this.rope!.forward(this.k_norm.forward(splitHeads(keys, this.kvHeads)), offset);
    return joinHeads(attention(q, k, splitHeads(values, this.kvHeads), { scale: this.scale, mask, cache }));
  }

  override shard(split: Split): void {
    const norms = { queries: this.q_norm, keys: this.k_norm };
    const divide = (share: HeadShare) => {
      norms.queries?.keep(share.queries);
      norms.keys?.keep(share.keys);
    };
    divideHeads(this, split, { others: { names: ["q_norm", "k_norm"], divide } });
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { layer_norm_eps: eps, layer_norm_bias: bias } = args;
    const trunk = { ...args, rms_norm_eps: eps, tie_word_embeddings: true };
    super(trunk, () => new ParallelBlock(new Attention(args), args), {
      norm: (dims) => new LayerNorm(dims, eps, { bias }),
      adjustLogits: (logits) => logits.multiply(args.logit_scale),
    });
  }
}

export { awq } from "./cohere2";

/** llama.cpp knows the models with norms of queries and keys by their number of layers. */
const isNormed = (layers: number) => layers >= 64;

export const gguf = decoder("command-r", {
  names: new TensorNames(plainLayer),
  epsilon: ["attention.layer_norm_epsilon", "layer_norm_eps"],
  ropeBase: 8_000_000,
  floats: { logit_scale: "logit_scale" },
  only: { attention_bias: false, layer_norm_bias: false },
  read: (_, { num_hidden_layers: layers }) => ({ use_qk_norm: isNormed(layers as number) }),
  write({ num_hidden_layers: layers, use_qk_norm: is }) {
    if (is !== isNormed(layers)) noPlace(`"use_qk_norm" ${is} with ${layers} layers`);
    return {};
  },
});
