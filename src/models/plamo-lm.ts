/** The trunk of PLaMo's models: their layers are a list within a module of the same name. */
import type { Tensor } from "../mlx";
import {
  type Cache,
  type CacheOptions,
  type DecoderLayer,
  Embedding,
  type ForwardOptions,
  type KeyValueCache,
  type Layer,
  Linear,
  layerCaches,
  Module,
  type Norm,
  throughLayers,
  turnConvolutions,
} from "../nn";
import type { LanguageModel } from "./language-model";

class Layers<C extends Cache> extends Module {
  constructor(readonly layers: DecoderLayer<C>[]) {
    super();
  }
}

class Trunk<C extends Cache> extends Module {
  constructor(
    readonly embed_tokens: Embedding,
    readonly layers: Layers<C>,
    readonly norm: Module & Norm,
  ) {
    super();
  }
}

export interface PlamoSizes {
  hidden_size: number;
  vocab_size: number;
  num_hidden_layers: number;
  /** The head is the embedding. */
  tie_word_embeddings: boolean;
}

export class PlamoLM<C extends Cache = KeyValueCache> extends Module implements LanguageModel {
  readonly model: Trunk<C>;
  lm_head?: Layer;

  /** @param block layer number `index` @param norm the last one */
  constructor(
    { hidden_size: D, vocab_size: V, num_hidden_layers: count, tie_word_embeddings: tied }: PlamoSizes,
    block: (index: number) => DecoderLayer<C>,
    norm: Module & Norm,
  ) {
    super();
    const layers = Array.from({ length: count }, (_, index) => block(index));
    this.model = new Trunk(new Embedding(V, D), new Layers(layers), norm);
    if (!tied) this.lm_head = new Linear(D, V, { bias: false });
  }

  get layers(): DecoderLayer<C>[] {
    return this.model.layers.layers;
  }

  get vocabSize(): number {
    return this.model.embed_tokens.weight.dim(0);
  }

  forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<C> = {}): Tensor {
    const { embed_tokens, norm } = this.model;
    const h = throughLayers(inputEmbeddings ?? embed_tokens.forward(inputs), this.layers, cache).branch(norm);
    return this.lm_head ? this.lm_head.forward(h) : embed_tokens.asLinear(h);
  }

  /** Turns convolutions, and drops a head that repeats the tied embedding and frequencies that some exports save. */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = new Map([...weights].filter(([name]) => !name.endsWith("rotary_emb.inv_freq")));
    turnConvolutions(sanitized);
    if (!this.lm_head) sanitized.delete("lm_head.weight");
    return sanitized;
  }

  makeCache(options?: CacheOptions): C[] {
    return layerCaches(this.layers, options);
  }
}
