/** Models that call their trunk `backbone`, as Mamba and its descendants do. */
import type { Tensor } from "../mlx";
import {
  type Cache,
  type CacheOptions,
  type DecoderLayer,
  Embedding,
  type ForwardOptions,
  type Layer,
  Linear,
  layerCaches,
  Module,
  type Residual,
  RMSNorm,
  throughLayers,
  turnConvolutions,
} from "../nn";
import type { LanguageModel } from "./language-model";
import type { Trunk } from "./mtp/draft-head";

export interface BackboneArgs {
  hidden_size: number;
  vocab_size: number;
  /** The head is the embedding. */
  tie_word_embeddings: boolean;
}

class Backbone<C extends Cache> extends Module {
  embeddings: Embedding;
  layers: DecoderLayer<C>[];
  norm_f: RMSNorm;

  constructor({ vocab_size, hidden_size }: BackboneArgs, blocks: () => DecoderLayer<C>[], eps: number) {
    super();
    this.embeddings = new Embedding(vocab_size, hidden_size);
    this.layers = blocks();
    this.norm_f = new RMSNorm(hidden_size, eps);
  }
}

export class BackboneLM<C extends Cache> extends Module implements LanguageModel, Trunk {
  readonly backbone: Backbone<C>;
  lm_head?: Layer;

  /** @param eps of the last norm */
  constructor(args: BackboneArgs, blocks: () => DecoderLayer<C>[], eps: number) {
    super();
    this.backbone = new Backbone(args, blocks, eps);
    if (!args.tie_word_embeddings) this.lm_head = new Linear(args.hidden_size, args.vocab_size, { bias: false });
  }

  get layers(): DecoderLayer<C>[] {
    return this.backbone.layers;
  }

  get vocabSize(): number {
    return this.backbone.embeddings.weight.dim(0);
  }

  forward(inputs: Tensor, options?: ForwardOptions<C>): Tensor {
    return this.scores(this.normed(this.stream(inputs, options)));
  }

  stream(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<C> = {}): Residual {
    const { embeddings, layers } = this.backbone;
    return throughLayers(inputEmbeddings ?? embeddings.forward(inputs), layers, cache);
  }

  normed(stream: Residual): Tensor {
    return stream.branch(this.backbone.norm_f);
  }

  scores(normed: Tensor): Tensor {
    return this.lm_head ? this.lm_head.forward(normed) : this.backbone.embeddings.asLinear(normed);
  }

  embed(inputs: Tensor): Tensor {
    return this.backbone.embeddings.forward(inputs);
  }

  /** Turns convolutions, and drops a head that repeats the tied embedding. */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = new Map(weights);
    turnConvolutions(sanitized);
    if (!this.lm_head) sanitized.delete("lm_head.weight");
    return sanitized;
  }

  makeCache(options?: CacheOptions): C[] {
    return layerCaches(this.layers, options);
  }
}
