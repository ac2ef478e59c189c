/** What a language model is to those who run it, and the form that most have. */
import type { Tensor } from "../mlx";
import {
  type Cache,
  type CacheOptions,
  Decoder,
  type DecoderLayer,
  Embedding,
  type ForwardOptions,
  type KeyValueCache,
  type Layer,
  Linear,
  layerCaches,
  Module,
  type Norm,
  type Residual,
  RMSNorm,
  type TrunkNames,
} from "../nn";
import type { SeeingModel } from "./images";
import type { Trunk } from "./mtp/draft-head";

export interface LanguageModel extends Module {
  readonly layers: readonly DecoderLayer<Cache>[];
  /** How many token ids the embedding has. MLX checks none: an id beyond it would read foreign memory. */
  readonly vocabSize: number;
  /** Token ids (B, T), uint32 → logits (B, T, V) */
  forward(inputs: Tensor, options?: ForwardOptions<Cache>): Tensor;
  /** A checkpoint's tensors under this model's names. Applied to its own names it changes nothing. */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor>;
  /** An empty cache for one conversation or batch: one entry for each layer that keeps something. The caller disposes of them. */
  makeCache(options?: CacheOptions): Cache[];
  /** How it takes images; absent or null where it takes none. */
  readonly images?: SeeingModel | null;
}

/** What config.json says of the trunk, by the names that most architectures use. */
export interface TrunkArgs {
  hidden_size: number;
  vocab_size: number;
  num_hidden_layers: number;
  rms_norm_eps: number;
  /** The head is the embedding. */
  tie_word_embeddings: boolean;
}

export interface TrunkOptions<C extends Cache = KeyValueCache> {
  /** Of the last norm; RMSNorm where absent. */
  norm?: (dims: number, eps: number) => Module & Norm;
  /** Factor on the embeddings. */
  embeddingScale?: number;
  /** What checkpoints call embedding and last norm, where it is not "embed_tokens" and "norm". */
  names?: Partial<TrunkNames>;
  /** Whether a head that is not the embedding has a bias. */
  headBias?: boolean;
  /** Makes the trunk of its parts, where it is another one than `Decoder`. */
  decoder?: (...parts: ConstructorParameters<typeof Decoder<C>>) => Decoder<C>;
  /** What becomes of the hidden states (B, T, D) ahead of the head. */
  adjustHidden?: (h: Tensor) => Tensor;
  /** What becomes of the logits (B, T, V): a scale, a cap. */
  adjustLogits?: (logits: Tensor) => Tensor;
}

/**
 * A decoder and its head: the embedding itself where there is no `lm_head`. Its parts are made in the checkpoint's order, in
 * which Python draws their weights.
 */
export class CausalLM<C extends Cache = KeyValueCache> extends Module implements LanguageModel, Trunk {
  readonly model: Decoder<C>;
  lm_head?: Layer;
  readonly #adjustHidden: (h: Tensor) => Tensor;
  readonly #adjustLogits: (logits: Tensor) => Tensor;

  /** @param block layer number `index` */
  constructor(args: TrunkArgs, block: (index: number) => DecoderLayer<C>, options: TrunkOptions<C> = {}) {
    super();
    const { hidden_size: D, vocab_size: V, rms_norm_eps: eps } = args;
    const norm = options.norm ?? ((dims: number) => new RMSNorm(dims, eps));
    const decoder = options.decoder ?? ((...parts) => new Decoder<C>(...parts));
    this.model = decoder(
      new Embedding(V, D),
      Array.from({ length: args.num_hidden_layers }, (_, index) => block(index)),
      norm(D, eps),
      options.embeddingScale,
      options.names,
    );
    if (!args.tie_word_embeddings) this.lm_head = new Linear(D, V, { bias: options.headBias ?? false });
    this.#adjustHidden = options.adjustHidden ?? ((h) => h);
    this.#adjustLogits = options.adjustLogits ?? ((logits) => logits);
  }

  get layers(): DecoderLayer<C>[] {
    return this.model.layers;
  }

  get vocabSize(): number {
    return this.model.embedding.weight.dim(0);
  }

  forward(inputs: Tensor, options?: ForwardOptions<C>): Tensor {
    return this.scores(this.hidden(inputs, options));
  }

  /** Hidden states behind the last norm (B, T, D) → logits (B, T, V) */
  scores(normed: Tensor): Tensor {
    const h = this.#adjustHidden(normed);
    return this.#adjustLogits(this.lm_head ? this.lm_head.forward(h) : this.model.embedding.asLinear(h));
  }

  stream(inputs: Tensor, options?: ForwardOptions<C>): Residual {
    return this.model.stream(inputs, options);
  }

  normed(stream: Residual): Tensor {
    return stream.branch(this.model.lastNorm);
  }

  embed(inputs: Tensor): Tensor {
    return this.model.embedding.forward(inputs);
  }

  /** Token ids (B, T) → hidden states, behind the last norm (B, T, D) */
  hidden(inputs: Tensor, options?: ForwardOptions<C>): Tensor {
    return this.model.forward(inputs, options);
  }

  /** Drops a head that repeats the tied embedding, and frequencies that some exports save. */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const kept = [...weights].filter(([name]) => !name.endsWith("rotary_emb.inv_freq"));
    const sanitized = new Map(kept);
    if (!this.lm_head) sanitized.delete("lm_head.weight");
    return sanitized;
  }

  makeCache(options?: CacheOptions): C[] {
    return layerCaches(this.layers, options);
  }
}
