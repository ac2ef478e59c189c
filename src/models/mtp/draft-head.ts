/**
 * A model's own layers for drafting: each takes hidden states of the model and the embeddings of the tokens behind them,
 * and predicts one token further. Embedding and head are the model's. DeepSeek-AI 2024, arXiv:2412.19437, section 2.2.
 */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import {
  type Cache,
  type DecoderLayer,
  type ForwardOptions,
  type Layer,
  layerCaches,
  Module,
  type Norm,
  type Residual,
  throughLayers,
} from "../../nn";

/** The model that a draft head belongs to, in its parts. */
export interface Trunk {
  /** Token ids (B, T) → the stream behind the last layer, (B, T, D) */
  stream(inputs: Tensor, options?: ForwardOptions<Cache>): Residual;
  /** Of the stream, what the head takes: (B, T, D) */
  normed(stream: Residual): Tensor;
  /** (B, T, D) → logits (B, T, V) */
  scores(normed: Tensor): Tensor;
  /** Token ids (B, T) → (B, T, D) */
  embed(inputs: Tensor): Tensor;
}

/** What one draft layer is made of. */
export interface DraftParts {
  embeddingNorm: Norm;
  hiddenNorm: Norm;
  /** From both side by side (B, T, 2 D) to (B, T, D). */
  projection: Layer;
  blocks: readonly DecoderLayer<Cache>[];
  /** The model's where absent. */
  lastNorm?: Norm;
  /** The model's where absent. */
  head?: Layer;
}

/** Hidden states (B, T, D): what the next draft layer takes, and what the head does. */
export interface DraftStates {
  states: Tensor;
  normed: Tensor;
}

export interface DraftHeadOptions {
  /** The projection takes hidden states first, then embeddings. */
  hiddenFirst?: boolean;
  /** Hidden states are taken ahead of the last norm, the model's and a draft layer's. */
  takesStream?: boolean;
  /** All draft layers take the model's hidden states; else a further one takes what the one before it gives. */
  takesModels?: boolean;
}

export abstract class DraftHead extends Module {
  readonly #trunk: Trunk;
  readonly #options: DraftHeadOptions;

  constructor(trunk: Trunk, options: DraftHeadOptions = {}) {
    super();
    this.#trunk = trunk;
    this.#options = options;
  }

  /** How many draft layers there are. One alone may draft several tokens, by what it gives. */
  abstract readonly depth: number;

  protected abstract parts(index: number): DraftParts;

  /** Whether a further draft layer takes what the one before it gives, not the model's hidden states. */
  get chains(): boolean {
    return !this.#options.takesModels;
  }

  /** The model's forward pass: token ids (B, T) → its logits (B, T, V), and the hidden states that draft layers take. */
  read(inputs: Tensor, options?: ForwardOptions<Cache>): { logits: Tensor; states: Tensor } {
    const stream = this.#trunk.stream(inputs, options);
    const { states, normed } = this.#statesOf(stream, this.#trunk.normed(stream));
    return { logits: this.#trunk.scores(normed), states };
  }

  /** Draft layer number `index`: hidden states (B, T, D) and the ids of the tokens behind them (B, T). */
  step(index: number, hidden: Tensor, next: Tensor, cache?: readonly Cache[]): DraftStates {
    const { embeddingNorm, hiddenNorm, projection, blocks, lastNorm } = this.parts(index);
    const both = [embeddingNorm.forward(this.#trunk.embed(next)), hiddenNorm.forward(hidden)];
    if (this.#options.hiddenFirst) both.reverse();
    const stream = throughLayers(projection.forward(mx.concatenate(both, { axis: -1 })), blocks, cache);
    return this.#statesOf(stream, lastNorm ? stream.branch(lastNorm) : this.#trunk.normed(stream));
  }

  #statesOf(stream: Residual, normed: Tensor): DraftStates {
    return { states: this.#options.takesStream ? stream.value : normed, normed };
  }

  /** Hidden states behind the norm of draft layer number `index` (B, T, D) → logits (B, T, V) */
  scores(normed: Tensor, index = 0): Tensor {
    return this.parts(index).head?.forward(normed) ?? this.#trunk.scores(normed);
  }

  /** Empty caches of each draft layer. The caller disposes of them. */
  makeCache(): Cache[][] {
    return Array.from({ length: this.depth }, (_, index) => layerCaches(this.parts(index).blocks));
  }
}
