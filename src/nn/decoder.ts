/** The trunk of a decoder: embedding, layers, final norm. */

import type { Tensor } from "../mlx";
import { type Cache, type KeyValueCache, KVCache, RotatingKVCache } from "./cache";
import { fullAttention, layerMasks, type Mask, type MaskRule } from "./masks";
import { Module } from "./module";
import type { Stage } from "./pipeline";
import { type Norm, Residual } from "./residual";

export interface CacheOptions {
  /** Keep only so many tokens of layers that attend to all, the first few among them. */
  maxSize?: number | null;
}

/** @typeParam C the kind of cache that it keeps; a model of several kinds of layers has the union */
export interface DecoderLayer<C extends Cache = KeyValueCache> extends Module {
  /** How its mask is made: `fullAttention` where absent. */
  readonly mask?: MaskRule<C>;
  /** It looks at no other token, so no cache is made for it. Its mask is `noMask`. */
  readonly stateless?: boolean;
  forward(x: Residual, mask: Mask, cache?: C): Residual;
  /** An empty cache of it for one conversation or batch; keys and values of what its mask lets it see where absent. */
  makeCache?(options: CacheOptions): C;
}

export interface ForwardOptions<C extends Cache = KeyValueCache> {
  /** One for each layer but those without state, changed in place. */
  cache?: readonly C[];
  /** (B, T, D): used in place of the tokens' embeddings. */
  inputEmbeddings?: Tensor;
}

/** Hidden states x (B, T, D) through all layers, each with its own mask and its own cache. */
export function throughLayers<C extends Cache>(
  x: Tensor,
  layers: readonly DecoderLayer<C>[],
  cache?: readonly C[],
): Residual {
  const rules = layers.map(({ mask }) => mask ?? (fullAttention as unknown as MaskRule<C>));
  const caches = cache && cacheOfEach(layers, cache);
  const masks = layerMasks(x, rules, caches);
  return layers.reduce((h, layer, i) => layer.forward(h, masks[i]!, caches?.[i]), new Residual(x));
}

function cacheOfEach<C extends Cache>(
  layers: readonly DecoderLayer<C>[],
  cache: readonly C[],
): readonly (C | undefined)[] {
  if (!layers.some(({ stateless }) => stateless)) return cache;
  let next = 0;
  return layers.map(({ stateless }) => (stateless ? undefined : cache[next++]));
}

/** How many of the first tokens a size-limited cache keeps: attention leans on them. Xiao et al. 2023, arXiv:2309.17453. */
const attentionSinks = 4;

/** Empty caches, one for each layer but those without state. The caller disposes of them. */
export function layerCaches<C extends Cache>(layers: readonly DecoderLayer<C>[], options: CacheOptions = {}): C[] {
  return layers
    .filter(({ stateless }) => !stateless)
    .map((layer) => layer.makeCache?.(options) ?? (keyValueCache(layer.mask?.window, options) as Cache as C));
}

function keyValueCache(window: number | undefined, { maxSize }: CacheOptions): KeyValueCache {
  if (window) return new RotatingKVCache(window);
  return maxSize ? new RotatingKVCache(maxSize, attentionSinks) : new KVCache();
}

/** What maps token ids to vectors, and in tied models vectors to scores. */
export interface TokenEmbedding extends Module {
  /** (count, dims), packed or not */
  readonly weight: Tensor;
  forward(ids: Tensor): Tensor;
  asLinear(x: Tensor): Tensor;
}

/** What checkpoints call the embedding and the last norm. */
export interface TrunkNames {
  embedding: "embed_tokens" | "word_embeddings" | "embeddings";
  norm: "norm" | "final_layernorm" | "final_norm" | "hyper_connection_mixer";
}

export class Decoder<C extends Cache = KeyValueCache> extends Module {
  /** These two have other names in some checkpoints: `embedding` and `lastNorm` are them in all. */
  readonly embed_tokens!: TokenEmbedding;
  readonly word_embeddings?: TokenEmbedding;
  readonly embeddings?: TokenEmbedding;
  /** Those of this process, where others have the rest. */
  layers: DecoderLayer<C>[];
  readonly norm!: Module & Norm;
  readonly final_layernorm?: Module & Norm;
  readonly final_norm?: Module & Norm;
  readonly hyper_connection_mixer?: Module & Norm;
  readonly names: TrunkNames;
  /** This process's place, where the layers are spread over several. */
  #stage: Stage | null = null;

  constructor(
    embedding: TokenEmbedding,
    layers: DecoderLayer<C>[],
    norm: Module & Norm,
    /** Factor on the embeddings. */
    readonly embeddingScale: number | null = null,
    names: Partial<TrunkNames> = {},
  ) {
    super();
    this.names = { embedding: "embed_tokens", norm: "norm", ...names };
    this[this.names.embedding] = embedding;
    this.layers = layers;
    this[this.names.norm] = norm;
  }

  get embedding(): TokenEmbedding {
    return this[this.names.embedding]!;
  }

  get lastNorm(): Module & Norm {
    return this[this.names.norm]!;
  }

  /** Token ids (B, T) → hidden states (B, T, D) */
  forward(inputs: Tensor, options?: ForwardOptions<C>): Tensor {
    return this.stream(inputs, options).branch(this.lastNorm);
  }

  /** The same ahead of the last norm. */
  stream(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<C> = {}): Residual {
    let x = inputEmbeddings ?? this.embedding.forward(inputs);
    if (this.embeddingScale !== null) x = x.multiply(this.embeddingScale);
    if (!this.#stage) return throughLayers(x, this.layers, cache);
    return new Residual(this.#stage.run(x, (x) => throughLayers(x, this.layers, cache).value));
  }

  /** Whether layers only pass hidden states on, so that they may be on several processes. */
  get isUniform(): boolean {
    const { forward, stream } = Decoder.prototype;
    return this.forward === forward && this.stream === stream;
  }

  /** Leaves the layers of one process, lazily: weights of others that are still in their files are never read. */
  takeStage(stage: Stage): void {
    const [start, end] = stage.layers(this.layers.length);
    for (const [index, layer] of this.layers.entries()) if (index < start || index >= end) layer.dispose();
    this.layers = this.layers.slice(start, end);
    this.#stage = stage;
  }
}
