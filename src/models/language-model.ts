/** What a language model is to those who run it, and the form that most have. */
import type { Tensor } from "../mlx";
import {
  type Cache,
  type Decoder,
  type DecoderLayer,
  type ForwardOptions,
  type KeyValueCache,
  KVCache,
  type Linear,
  Module,
  RotatingKVCache,
} from "../nn";

export interface CacheOptions {
  /** Keep only so many tokens of layers that attend to all, the first few among them. */
  maxSize?: number | null;
}

export interface LanguageModel extends Module {
  readonly layers: readonly Module[];
  /** How many token ids the embedding has. MLX checks none: an id beyond it would read foreign memory. */
  readonly vocabSize: number;
  /** Token ids (B, T), uint32 → logits (B, T, V) */
  forward(inputs: Tensor, options?: { cache?: readonly Cache[]; inputEmbeddings?: Tensor }): Tensor;
  /** A checkpoint's tensors under this model's names. Applied to its own names it changes nothing. */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor>;
  /** An empty cache for one conversation or batch: one entry for each layer. The caller disposes of them. */
  makeCache(options?: CacheOptions): Cache[];
}

/** How many of the first tokens a size-limited cache keeps: attention leans on them. Xiao et al. 2023, arXiv:2309.17453. */
const attentionSinks = 4;

/** A decoder and its head: the embedding itself where there is no `lm_head`. */
export class CausalLM extends Module implements LanguageModel {
  constructor(
    readonly model: Decoder,
    public lm_head?: Linear,
  ) {
    super();
  }

  get layers(): DecoderLayer[] {
    return this.model.layers;
  }

  get vocabSize(): number {
    return this.model.embed_tokens.weight.dim(0);
  }

  forward(inputs: Tensor, options?: ForwardOptions): Tensor {
    const h = this.model.forward(inputs, options);
    return this.lm_head ? this.lm_head.forward(h) : this.model.embed_tokens.asLinear(h);
  }

  /** Drops a head that repeats the tied embedding, and frequencies that some exports save. */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const kept = [...weights].filter(([name]) => !name.endsWith("rotary_emb.inv_freq"));
    const sanitized = new Map(kept);
    if (!this.lm_head) sanitized.delete("lm_head.weight");
    return sanitized;
  }

  makeCache({ maxSize }: CacheOptions = {}): KeyValueCache[] {
    return this.layers.map(({ window }) => {
      if (window) return new RotatingKVCache(window);
      return maxSize ? new RotatingKVCache(maxSize, attentionSinks) : new KVCache();
    });
  }
}
