/** StableLM: Llama with LayerNorm, a part of each head turned, and in some sizes attention and MLP side by side on one norm. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  type DecoderLayer,
  divideHeads,
  GatedMLP,
  type HeadShare,
  joinHeads,
  type KeyValueCache,
  LayerNorm,
  type Mask,
  Module,
  project,
  type Residual,
  type Split,
  splitHeads,
} from "../nn";
import { checkHeads, headsOf, ropeFields, ropeOf, size } from "./args";
import { decoder } from "./gguf/decoder";
import { plainLayer, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    vocab_size: size,
    hidden_size: size,
    num_attention_heads: size,
    num_hidden_layers: size,
    num_key_value_heads: size,
    intermediate_size: size,
    ...ropeFields,
    use_qkv_bias: z.boolean(),
    partial_rotary_factor: z.number().positive().max(1),
    layer_norm_eps: z.number().positive(),
    use_parallel_residual: z.boolean().default(false),
    qk_layernorm: z.boolean().default(false),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

/** LayerNorm of each head by weights of its own. */
class HeadNorms extends Module {
  norms: LayerNorm[];

  constructor(
    dims: number,
    heads: number,
    readonly eps: number,
  ) {
    super();
    this.norms = Array.from({ length: heads }, () => new LayerNorm(dims, eps, { bias: false }));
  }

  /** x (B, H, T, D) */
  forward(x: Tensor): Tensor {
    const weights = mx.stack(this.norms.map(({ weight }) => weight!));
    return mx.fast.layerNorm(x, null, null, this.eps).multiply(weights.expandDims(1));
  }

  /** Leaves some of the heads. */
  keep([start, end]: HeadShare["queries"]): void {
    for (const [head, norm] of this.norms.entries()) if (head < start || head >= end) norm.dispose();
    this.norms = this.norms.slice(start, end);
  }
}

class Attention extends llama.Attention {
  q_layernorm?: HeadNorms;
  k_layernorm?: HeadNorms;

  constructor(args: Args) {
    const sizes = { ...args, attention_bias: args.use_qkv_bias, rope_traditional: false };
    const { headDim } = headsOf(args);
    const rope = { ...ropeOf(sizes), dims: Math.trunc(args.partial_rotary_factor * headDim) };
    super(sizes, { rope, outputBias: false });
    if (!args.qk_layernorm) return;
    this.q_layernorm = new HeadNorms(headDim, this.heads, args.layer_norm_eps);
    this.k_layernorm = new HeadNorms(headDim, this.kvHeads, args.layer_norm_eps);
  }

  /** Scores of half precision outgrow it. */
  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [queries, keys, values] = project(x, [this.q_proj, this.k_proj, this.v_proj]) as [Tensor, Tensor, Tensor];
    const offset = cache?.offset ?? 0;
    const placed = (part: Tensor, heads: number, norm?: HeadNorms) => {
      const split = splitHeads(part, heads);
      return this.rope!.forward(norm?.forward(split) ?? split, offset);
    };
    const q = placed(queries, this.heads, this.q_layernorm).astype("float32");
    const k = placed(keys, this.kvHeads, this.k_layernorm);
    const out = attention(q, k, splitHeads(values, this.kvHeads), { scale: this.scale, mask, cache });
    return joinHeads(out.astype(x.dtype));
  }

  override shard(split: Split): void {
    const divide = ({ queries, keys }: HeadShare) => {
      this.q_layernorm?.keep(queries);
      this.k_layernorm?.keep(keys);
    };
    divideHeads(this, split, { others: { names: ["q_layernorm", "k_layernorm"], divide } });
  }
}

class Block extends Module implements DecoderLayer {
  self_attn: Attention;
  mlp: GatedMLP;
  input_layernorm: LayerNorm;
  /** Absent where attention and MLP are side by side. */
  post_attention_layernorm?: LayerNorm;

  constructor(args: Args) {
    super();
    const { hidden_size: D, layer_norm_eps: eps } = args;
    this.self_attn = new Attention(args);
    this.mlp = new GatedMLP(D, args.intermediate_size);
    this.input_layernorm = new LayerNorm(D, eps);
    if (!args.use_parallel_residual) this.post_attention_layernorm = new LayerNorm(D, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const normed = x.branch(this.input_layernorm);
    const h = x.plus(this.self_attn.forward(normed, mask, cache));
    const read = this.post_attention_layernorm ? h.branch(this.post_attention_layernorm) : normed;
    return h.plus(this.mlp.forward(read));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { layer_norm_eps: eps } = args;
    super({ ...args, rms_norm_eps: eps, tie_word_embeddings: false }, () => new Block(args), {
      norm: (dims) => new LayerNorm(dims, eps),
    });
  }
}

/** The norms of all heads are one tensor in files. */
function headNorms(config: object): Record<string, string[]> {
  const args = config as Args;
  if (!args.qk_layernorm) return {};
  const { heads, kvHeads } = headsOf(args);
  const of = (layer: number, part: string, count: number) =>
    Array.from(
      { length: count },
      (_, head) => `model.layers.${layer}.self_attn.${part}_layernorm.norms.${head}.weight`,
    );
  return Object.fromEntries(
    Array.from({ length: args.num_hidden_layers }, (_, layer) => [
      [`blk.${layer}.attn_q_norm.weight`, of(layer, "q", heads)] as const,
      [`blk.${layer}.attn_k_norm.weight`, of(layer, "k", kvHeads)] as const,
    ]).flat(),
  );
}

export const gguf = decoder("stablelm", {
  names: new TensorNames(plainLayer),
  stacked: headNorms,
  epsilon: ["attention.layer_norm_epsilon", "layer_norm_eps"],
  turning: ({ headDim, partial_rotary_factor: share }) => Math.trunc(headDim * (share as number)),
  flags: { use_parallel_residual: "use_parallel_residual" },
  read: (file, { attention_bias, partial_rotary_factor = 1 }) => ({
    partial_rotary_factor,
    use_qkv_bias: attention_bias,
    qk_layernorm: file.shape("blk.0.attn_q_norm.weight") !== undefined,
    use_parallel_residual: file.shape("blk.0.ffn_norm.weight") === undefined,
  }),
});
