/**
 * Gemma 3n, the language model: Gemma 3's sandwich of norms around four streams of hidden states (AltUp), a low-rank path
 * beside attention (LAuReL), an input for each layer, sparse gates in the first MLPs, and last layers that share keys and
 * values.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  AltUp,
  type Cache,
  type CacheOptions,
  Embedding,
  type ForwardOptions,
  GatedMLP,
  geglu,
  type KeyValueCache,
  type Layer,
  Linear,
  layerCaches,
  type Mask,
  type MaskRule,
  Module,
  normalQuantile,
  perLayerDelta,
  perLayerInputs,
  Residual,
  RMSNorm,
  rowOwners,
  type SharedRows,
  SharingAttention,
  type SharingLayer,
  SharingResidual,
  throughSharingLayers,
} from "../nn";
import { AttentionType, checkHeads, checkLayerTypes, count, maskOf, ropeFields, ropeOptions, size } from "./args";
import type { LanguageModel } from "./language-model";
import { isOtherPart, nestedArgs } from "./nested";

const TextArgs = z
  .object({
    hidden_size: size,
    num_hidden_layers: size,
    intermediate_size: z.union([size, z.array(size)]),
    num_attention_heads: size,
    head_dim: size,
    rms_norm_eps: z.number().positive(),
    vocab_size: size,
    num_key_value_heads: size,
    num_kv_shared_layers: count,
    vocab_size_per_layer_input: size,
    max_position_embeddings: size.default(32_768),
    sliding_window: size,
    ...ropeFields,
    rope_local_base_freq: z.number().positive().default(10_000),
    final_logit_softcapping: z.number().positive().nullish(),
    layer_types: z.array(AttentionType),
    /** For each layer the share of its gates that are closed. */
    activation_sparsity_pattern: z.array(z.number().nonnegative().lt(1)).nullish(),
    hidden_size_per_layer_input: size,
    altup_num_inputs: size,
    altup_coef_clip: z.number().positive().nullish(),
    altup_correct_scale: z.boolean(),
    altup_active_idx: count,
    laurel_rank: size,
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine((args, context) => {
    const problem = (field: keyof typeof args, message: string) =>
      context.addIssue({ code: "custom", path: [field], message });
    const { num_hidden_layers: layers, num_kv_shared_layers: shared } = args;
    for (const field of ["intermediate_size", "activation_sparsity_pattern"] as const) {
      const list = args[field];
      if (!Array.isArray(list) || list.length === layers) continue;
      problem(field, `has ${list.length} entries, but "num_hidden_layers" is ${layers}`);
    }
    if (shared > layers) problem("num_kv_shared_layers", `is ${shared}, but "num_hidden_layers" is ${layers}`);
    else if (rowOwners(args.layer_types, shared).includes(-1)) {
      problem("num_kv_shared_layers", `is ${shared}: no layer ahead of these has the type of one of them`);
    }
    if (args.altup_active_idx >= args.altup_num_inputs) {
      problem("altup_active_idx", `is ${args.altup_active_idx}, but "altup_num_inputs" is ${args.altup_num_inputs}`);
    }
  });

type TextArgs = z.infer<typeof TextArgs>;

export const Args = nestedArgs(TextArgs);

const linear = (inputs: number, outputs: number) => new Linear(inputs, outputs, { bias: false });

function attentionOf(args: TextArgs, type: AttentionType, owns: boolean): SharingAttention {
  const isSliding = type === "sliding_attention";
  const { rope_parameters, rope_local_base_freq: base } = args;
  const own = isSliding ? { rope_parameters } : args;
  return new SharingAttention({
    dims: args.hidden_size,
    heads: args.num_attention_heads,
    kvHeads: args.num_key_value_heads,
    eps: args.rms_norm_eps,
    owns,
    rope: { dims: args.head_dim, ...ropeOptions(own, { base: isSliding ? base : 1_000_000, layerType: type }) },
  });
}

/** GeGLU with a share of the gates closed: only those so far above their mean are open. */
function sparseGeglu(closed: number): (gate: Tensor, x: Tensor) => Tensor {
  const bound = normalQuantile(closed);
  return (gate, x) => {
    const over = { axis: -1, keepdims: true };
    const cutoff = gate.mean(over).add(mx.std(gate, over).multiply(bound));
    return geglu(gate.subtract(cutoff).maximum(0), x);
  };
}

/** Its threshold is of all inner features: they stay together on each rank. */
class SparseGatedMLP extends GatedMLP {
  override shard(): void {}
}

function mlpOf(args: TextArgs, index: number): GatedMLP {
  const { intermediate_size: width } = args;
  const closed = args.activation_sparsity_pattern?.[index] ?? 0;
  const Block = closed > 0 ? SparseGatedMLP : GatedMLP;
  return new Block(args.hidden_size, Array.isArray(width) ? width[index]! : width, {
    activation: closed > 0 ? sparseGeglu(closed) : geglu,
  });
}

/** x + norm(right(left(x))). Menghani et al. 2024, arXiv:2411.07501. */
class Laurel extends Module {
  linear_left: Layer;
  linear_right: Layer;
  post_laurel_norm: RMSNorm;

  constructor({ hidden_size: D, laurel_rank, rms_norm_eps }: TextArgs) {
    super();
    this.linear_left = linear(D, laurel_rank);
    this.linear_right = linear(laurel_rank, D);
    this.post_laurel_norm = new RMSNorm(D, rms_norm_eps);
  }

  forward(x: Tensor): Tensor {
    return x.add(this.post_laurel_norm.forward(this.linear_right.forward(this.linear_left.forward(x))));
  }
}

/** Its stream carries N hidden states a token: (B, T, N, D). */
class Block extends Module implements SharingLayer {
  self_attn: SharingAttention;
  mlp: GatedMLP;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  pre_feedforward_layernorm: RMSNorm;
  post_feedforward_layernorm: RMSNorm;
  altup: AltUp;
  laurel: Laurel;
  per_layer_input_gate: Layer;
  per_layer_projection: Layer;
  post_per_layer_input_norm: RMSNorm;
  readonly mask?: MaskRule;
  readonly scalesActive: boolean;
  /** True for the streams that a layer's own input is added to, all but the first: (N, 1). */
  readonly _others: Tensor;

  constructor(args: TextArgs, index: number, owns: boolean) {
    super();
    const { hidden_size: D, hidden_size_per_layer_input: P, rms_norm_eps: eps } = args;
    const type = args.layer_types[index]!;
    const norm = () => new RMSNorm(D, eps);
    this.self_attn = attentionOf(args, type, owns);
    this.mlp = mlpOf(args, index);
    this.input_layernorm = norm();
    this.post_attention_layernorm = norm();
    this.pre_feedforward_layernorm = norm();
    this.post_feedforward_layernorm = norm();
    this.altup = new AltUp({ dims: D, streams: args.altup_num_inputs, active: args.altup_active_idx, eps });
    this.laurel = new Laurel(args);
    this.per_layer_input_gate = linear(D, P);
    this.per_layer_projection = linear(P, D);
    this.post_per_layer_input_norm = norm();
    this.mask = maskOf(type, args);
    this.scalesActive = args.altup_correct_scale;
    this._others = mx.keep(mx.scope(() => mx.arange(args.altup_num_inputs).greater(0).expandDims(-1)));
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache, input?: Tensor, rows?: SharedRows): Residual {
    const { altup } = this;
    const predictions = altup.predict(x.value);
    const active = altup.activeOf(predictions);
    const normed = this.input_layernorm.forward(active);
    const [attended, own] = this.self_attn.forward(normed, mask, cache, rows);
    const summed = active.add(this.post_attention_layernorm.forward(attended));
    const h = summed.add(this.laurel.forward(normed)).multiply(Math.SQRT1_2);
    const fed = this.post_feedforward_layernorm.forward(this.mlp.forward(this.pre_feedforward_layernorm.forward(h)));
    const corrected = altup.correct(predictions, h.add(fed));

    const first = altup.activeOf(corrected);
    const delta = perLayerDelta(this, this.scalesActive ? first.multiply(altup.correct_output_scale) : first, input!);
    return this.result(corrected.add(delta.expandDims(2).multiply(this._others)), own);
  }

  protected result(h: Tensor, _: SharedRows): Residual {
    return new Residual(h);
  }
}

/** A block whose keys and values later ones attend to. A kind of its own: a recomputed block gives hidden states alone. */
class GivingBlock extends Block {
  protected override result(h: Tensor, rows: SharedRows): Residual {
    return new SharingResidual(h, rows);
  }
}

/** √mean(x², last axis). The bound keeps a division by it finite. */
const magnitude = (x: Tensor) => x.square().mean({ axis: -1, keepdims: true }).maximum(1e-5).sqrt();

/** Streams x (B, T, n, D), made as large as the one at hand (B, T, D). */
const sizedLike = (one: Tensor, x: Tensor) => x.multiply(magnitude(one).expandDims(2).divide(magnitude(x)));

class TextModel extends Module {
  embed_tokens: Embedding;
  layers: Block[];
  embed_tokens_per_layer: Embedding;
  per_layer_model_projection: Layer;
  per_layer_projection_norm: RMSNorm;
  altup_projections: Layer[];
  altup_unembed_projections: Layer[];
  norm: RMSNorm;
  readonly owners: readonly number[];
  readonly owning: number;
  readonly cap: number | null;

  constructor(args: TextArgs) {
    super();
    const { hidden_size: D, hidden_size_per_layer_input: P, num_hidden_layers: layers, rms_norm_eps: eps } = args;
    const owners = rowOwners(args.layer_types, args.num_kv_shared_layers);
    this.embed_tokens = new Embedding(args.vocab_size, D);
    this.layers = owners.map((owner, i) => {
      const gives = owners.lastIndexOf(i) > i;
      return new (gives ? GivingBlock : Block)(args, i, owner === i);
    });
    this.embed_tokens_per_layer = new Embedding(args.vocab_size_per_layer_input, layers * P);
    this.per_layer_model_projection = linear(D, layers * P);
    this.per_layer_projection_norm = new RMSNorm(P, eps);
    const projections = () => Array.from({ length: args.altup_num_inputs - 1 }, () => linear(D, D));
    this.altup_projections = projections();
    this.altup_unembed_projections = projections();
    this.norm = new RMSNorm(D, eps);
    this.owners = owners;
    this.owning = layers - args.num_kv_shared_layers;
    this.cap = args.final_logit_softcapping ?? null;
  }

  /** Token ids (B, T) → logits (B, T, V) */
  forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions = {}): Tensor {
    const { layers, owners, cap } = this;
    const x = inputEmbeddings ?? this.embed_tokens.forward(inputs).multiply(Math.sqrt(this.norm.weight.dim(0)));
    const own = perLayerInputs(this, inputs, x);
    const streams = this.#withOthers(
      x,
      this.altup_projections.map((projection) => projection.forward(x)),
    );
    const out = throughSharingLayers(streams, layers, { cache, owners, inputs: own }).value;
    const logits = this.embed_tokens.asLinear(this.norm.forward(this.#joined(out)));
    return cap ? logits.divide(cap).tanh().multiply(cap) : logits;
  }

  /** The mean of all streams, each by its own projection: (B, T, N, D) → (B, T, D) */
  #joined(streams: Tensor): Tensor {
    const [first, ...others] = streams.split(streams.dim(2), 2).map((one) => one.squeeze(2)) as [Tensor, ...Tensor[]];
    const projected = others.map((one, i) => this.altup_unembed_projections[i]!.forward(one));
    return this.#withOthers(first, projected).mean({ axis: 2 });
  }

  #withOthers(first: Tensor, others: readonly Tensor[]): Tensor {
    if (others.length === 0) return first.expandDims(2);
    return mx.concatenate([first.expandDims(2), sizedLike(first, mx.stack(others, { axis: 2 }))], { axis: 2 });
  }
}

class Parts extends Module {
  constructor(readonly language_model: TextModel) {
    super();
  }
}

export class Model extends Module implements LanguageModel {
  readonly model: Parts;
  readonly clip: number | null;

  constructor(args: TextArgs) {
    super();
    this.model = new Parts(new TextModel(args));
    this.clip = args.altup_coef_clip ?? null;
  }

  get layers(): Block[] {
    return this.model.language_model.layers;
  }

  get vocabSize(): number {
    return this.model.language_model.embed_tokens.weight.dim(0);
  }

  forward(inputs: Tensor, options?: ForwardOptions<Cache>): Tensor {
    return this.model.language_model.forward(inputs, options as ForwardOptions);
  }

  /**
   * Leaves out the other parts, a head that repeats the embedding, and projections that no layer reads, which older
   * checkpoints have. Bounds AltUp's coefficients.
   */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const { clip } = this;
    const sanitized = new Map<string, Tensor>();
    for (const [name, tensor] of weights) {
      if (isOtherPart(name) || /(^|\.)lm_head\./.test(name)) continue;
      const unread = /layers\.(\d+)\.self_attn\.(k_proj|v_proj|k_norm)\./.exec(name);
      if (unread && Number(unread[1]) >= this.model.language_model.owning) continue;
      const isBounded = clip !== null && /altup\.(prediction|correction)_coefs\.weight$/.test(name);
      sanitized.set(name, isBounded ? mx.clip(tensor, -clip, clip) : tensor);
    }
    return sanitized;
  }

  /** Layers without rows of their own have no cache either. */
  makeCache(options?: CacheOptions): KeyValueCache[] {
    return layerCaches(this.layers.slice(0, this.model.language_model.owning), options);
  }
}

export { gemma3nFacts as gguf } from "./gguf/gemma3n";
