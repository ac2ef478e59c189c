/**
 * Apple's foundation model on devices (AFM 7): keys and values are rounded as 8-bit numbers would be, norms of heads come
 * after the rotation, and the last layers attend to the keys and values of the last one that has its own.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attendTo,
  type Cache,
  type CacheOptions,
  Embedding,
  type ForwardOptions,
  GatedMLP,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  layerCaches,
  type Mask,
  Module,
  parameter,
  type Residual,
  RMSNorm,
  RoPE,
  type SharedRows,
  type SharingLayer,
  SharingResidual,
  splitHeads,
  throughSharingLayers,
} from "../nn";
import { count, size } from "./args";
import type { LanguageModel } from "./language-model";

export const Args = z
  .object({
    vocab_size: size,
    hidden_dim: size,
    num_layers: size,
    /** How many of the last layers have no keys and values of their own. */
    num_kv_reuse_layers: count,
    num_heads: size,
    num_kv_heads: size,
    hidden_dim_scale_factor: z.number().positive().default(3.25),
    rope_theta: z.number().positive().default(50_000),
    rms_norm_eps: z.number().positive().default(1e-5),
  })
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { hidden_dim: dims, num_heads: heads, num_kv_heads: kvHeads, num_layers: layers } = args;
    if (dims % heads !== 0) problem("num_heads", `is ${heads}, but must divide "hidden_dim" (${dims})`);
    if (heads % kvHeads !== 0) problem("num_kv_heads", `is ${kvHeads}, but must divide "num_heads" (${heads})`);
    if (args.num_kv_reuse_layers >= layers) {
      problem("num_kv_reuse_layers", `is ${args.num_kv_reuse_layers}, but must be less than "num_layers" (${layers})`);
    }
  });

type Args = z.infer<typeof Args>;

/** x as the nearest of 256 multiples of `scale`. No gradient flows through it. */
function rounded(x: Tensor, scale: Tensor): Tensor {
  const steps = mx.round(x.astype("float32").divide(scale));
  return mx.clip(steps, -128, 127).multiply(scale).astype(x.dtype);
}

abstract class Attention extends Module {
  readonly rope: RoPE;
  readonly heads: number;
  readonly scale: number;

  constructor({ hidden_dim, num_heads, rope_theta }: Args) {
    super();
    const headDim = hidden_dim / num_heads;
    this.rope = new RoPE(headDim, { traditional: true, base: rope_theta });
    this.heads = num_heads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D), and what the queries attended to: another layer's `rows`, or its own. */
  abstract forward(x: Tensor, mask: Mask, cache?: KeyValueCache, rows?: SharedRows): [out: Tensor, rows: SharedRows];
}

class OwnAttention extends Attention {
  qkv_proj: Layer;
  out_proj: Layer;
  q_norm: RMSNorm;
  k_norm: RMSNorm;
  quant_key_scale: Tensor;
  quant_value_scale: Tensor;
  readonly kvHeads: number;

  constructor(args: Args) {
    super(args);
    const { hidden_dim: D, num_heads: heads, num_kv_heads: kvHeads } = args;
    const headDim = D / heads;
    this.qkv_proj = new Linear(D, (heads + 2 * kvHeads) * headDim, { bias: false });
    this.out_proj = new Linear(D, D, { bias: false });
    this.q_norm = new RMSNorm(headDim);
    this.k_norm = new RMSNorm(headDim);
    this.quant_key_scale = parameter(mx.array(1));
    this.quant_value_scale = parameter(mx.array(1));
    this.kvHeads = kvHeads;
  }

  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): [Tensor, SharedRows] {
    const { heads, kvHeads, scale } = this;
    const offset = cache?.offset ?? 0;
    const parts = splitHeads(this.qkv_proj.forward(x), heads + 2 * kvHeads).split([heads + kvHeads], 1);
    const [turning, values] = parts as [Tensor, Tensor];
    const [q, k] = this.rope.forward(turning, offset).split([heads], 1) as [Tensor, Tensor];
    const key = rounded(this.k_norm.forward(k), this.quant_key_scale);
    const value = rounded(values, this.quant_value_scale);
    const [keys, all] = cache?.update(key, value) ?? [key, value];
    const out = attendTo(this.q_norm.forward(q), keys, all, { scale, mask });
    return [this.out_proj.forward(joinHeads(out)), { keys, values: all, offset }];
  }
}

class SharingAttention extends Attention {
  q_proj: Layer;
  out_proj: Layer;
  q_norm: RMSNorm;

  constructor(args: Args) {
    super(args);
    const { hidden_dim: D } = args;
    this.q_proj = new Linear(D, D, { bias: false });
    this.out_proj = new Linear(D, D, { bias: false });
    this.q_norm = new RMSNorm(D / this.heads);
  }

  forward(x: Tensor, mask: Mask, _: KeyValueCache | undefined, rows: SharedRows): [Tensor, SharedRows] {
    const q = this.rope.forward(splitHeads(this.q_proj.forward(x), this.heads), rows.offset);
    const out = attendTo(this.q_norm.forward(q), rows.keys, rows.values, { scale: this.scale, mask });
    return [this.out_proj.forward(joinHeads(out)), rows];
  }
}

class Block extends Module implements SharingLayer {
  mlp: GatedMLP;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;

  constructor(
    readonly self_attn: Attention,
    { hidden_dim: D, hidden_dim_scale_factor: factor, rms_norm_eps: eps }: Args,
  ) {
    super();
    this.mlp = new GatedMLP(D, Math.trunc(D * factor));
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache, _?: Tensor, rows?: SharedRows): Residual {
    const [attended, used] = this.self_attn.forward(x.branch(this.input_layernorm), mask, cache, rows);
    const h = x.plus(attended);
    return this.result(h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm))), used);
  }

  protected result(h: Residual, _: SharedRows): Residual {
    return h;
  }
}

/** The block whose keys and values later ones attend to. A kind of its own: a recomputed block gives hidden states alone. */
class GivingBlock extends Block {
  protected override result(h: Residual, rows: SharedRows): Residual {
    return new SharingResidual(h.value, rows);
  }
}

class Trunk extends Module {
  embedding: Embedding;
  layers: Block[];
  kv_reuse_layers: Block[];
  output_norm: RMSNorm;

  constructor(args: Args) {
    super();
    const owning = args.num_layers - args.num_kv_reuse_layers;
    this.embedding = new Embedding(args.vocab_size, args.hidden_dim);
    this.layers = Array.from({ length: owning }, (_, i) => {
      const Kind = i === owning - 1 ? GivingBlock : Block;
      return new Kind(new OwnAttention(args), args);
    });
    this.kv_reuse_layers = Array.from(
      { length: args.num_kv_reuse_layers },
      () => new Block(new SharingAttention(args), args),
    );
    this.output_norm = new RMSNorm(args.hidden_dim, args.rms_norm_eps);
  }
}

export class Model extends Module implements LanguageModel {
  readonly model: Trunk;

  constructor(args: Args) {
    super();
    this.model = new Trunk(args);
  }

  get layers(): Block[] {
    return [...this.model.layers, ...this.model.kv_reuse_layers];
  }

  get vocabSize(): number {
    return this.model.embedding.weight.dim(0);
  }

  forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<Cache> = {}): Tensor {
    const { embedding, layers, output_norm } = this.model;
    // All that share do so with the last that has its own.
    const owners = this.layers.map((_, i) => Math.min(i, layers.length - 1));
    const x = inputEmbeddings ?? embedding.forward(inputs);
    const h = throughSharingLayers(x, this.layers, { cache: cache as readonly KeyValueCache[] | undefined, owners });
    return embedding.asLinear(output_norm.forward(h.value));
  }

  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    return new Map(weights);
  }

  /** Layers without rows of their own have no cache either. */
  makeCache(options?: CacheOptions): KeyValueCache[] {
    return layerCaches(this.model.layers, options);
  }
}
