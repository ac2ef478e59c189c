/** Language models whose checkpoints call the trunk and its parts by other names than most: GPT-2's, and those like it. */
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
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
  positionsFrom,
  throughLayers,
} from "../nn";
import type { LanguageModel } from "./language-model";

export interface NamedTrunk {
  trunk: "model" | "transformer";
  embedding: string;
  layers: "layers" | "h" | "blocks";
  norm: string;
  /** Within the trunk, or beside it where its name begins with a dot. */
  head: string;
}

export interface NamedLMSizes {
  dims: number;
  vocab: number;
  layers: number;
  /** The head is the embedding. */
  tied: boolean;
  headBias?: boolean;
  /** How many positions have a vector of their own, which is added to the embedding; none where absent. */
  positions?: number;
  /** What becomes of the embeddings (B, T, D), and of the logits (B, T, V). */
  adjustEmbeddings?: (x: Tensor) => Tensor;
  adjustLogits?: (logits: Tensor) => Tensor;
}

class Trunk extends Module {
  readonly layers!: DecoderLayer[];
  readonly h!: DecoderLayer[];
  readonly blocks!: DecoderLayer[];
  /** Vectors of positions. */
  readonly wpe?: Embedding;
}

export class NamedLM extends Module implements LanguageModel {
  declare readonly model: Trunk;
  declare readonly transformer: Trunk;

  constructor(
    readonly sizes: NamedLMSizes,
    readonly names: NamedTrunk,
    block: (index: number) => DecoderLayer,
    norm: Module & Norm,
  ) {
    super();
    const { dims, vocab, layers, tied, headBias = false, positions } = sizes;
    const trunk = new Trunk();
    Object.assign(trunk, { [names.embedding]: new Embedding(vocab, dims) });
    if (positions) Object.assign(trunk, { wpe: new Embedding(positions, dims) });
    Object.assign(trunk, {
      [names.layers]: Array.from({ length: layers }, (_, index) => block(index)),
      [names.norm]: norm,
    });
    Object.assign(this, { [names.trunk]: trunk });
    if (tied) return;
    const isBeside = names.head.startsWith(".");
    const head = new Linear(dims, vocab, { bias: headBias });
    Object.assign(isBeside ? this : trunk, { [names.head.replace(".", "")]: head });
  }

  get #trunk(): Trunk {
    return this[this.names.trunk];
  }

  /** A part of the trunk by its name. */
  #part<Part>(name: string): Part {
    return (this.#trunk as unknown as Record<string, Part>)[name]!;
  }

  get #embedding(): Embedding {
    return this.#part(this.names.embedding);
  }

  get layers(): DecoderLayer[] {
    return this.#trunk[this.names.layers];
  }

  get vocabSize(): number {
    return this.#embedding.weight.dim(0);
  }

  forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<KeyValueCache> = {}): Tensor {
    const { tied, adjustEmbeddings, adjustLogits } = this.sizes;
    const plain = inputEmbeddings ?? this.#embedding.forward(inputs);
    const embedded = adjustEmbeddings?.(plain) ?? plain;
    const x = this.#positioned(embedded, cache?.[0]?.offset ?? 0);
    const h = throughLayers(x, this.layers, cache).branch(this.#part<Module & Norm>(this.names.norm));
    const name = this.names.head;
    const head = () =>
      name.startsWith(".") ? (this as unknown as Record<string, Layer>)[name.slice(1)]! : this.#part<Layer>(name);
    const logits = tied ? this.#embedding.asLinear(h) : head().forward(h);
    return adjustLogits?.(logits) ?? logits;
  }

  /**
   * x (B, T, D) with the vectors of the positions from `offset` on.
   * @throws UserError for positions that have none
   */
  #positioned(x: Tensor, offset: number | Tensor): Tensor {
    const { positions } = this.sizes;
    const { wpe } = this.#trunk;
    if (!wpe || !positions) return x;
    const length = x.dim(1);
    if (typeof offset === "number") {
      if (offset + length > positions) throw tooLong(positions);
      return x.add(wpe.forward(mx.arange(offset, offset + length, 1, { dtype: "uint32" })));
    }
    // Padding may stand outside; MLX checks no bounds.
    const places = mx.clip(positionsFrom(offset, length), 0, positions - 1);
    return x.add(wpe.forward(places.astype("uint32")));
  }

  /** Drops a head that repeats the tied embedding, and frequencies that some exports save. */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const dropped = /(rotary_emb|rope)\.inv_freq$/;
    const head = `${this.names.head.replace(".", "")}.weight`;
    return new Map([...weights].filter(([name]) => !dropped.test(name) && !(this.sizes.tied && name === head)));
  }

  makeCache(options?: CacheOptions): KeyValueCache[] {
    return layerCaches(this.layers, options);
  }
}

const tooLong = (positions: number) =>
  new UserError(`this model has ${positions} positions, and the text is longer`, {
    hint: "Take a shorter prompt, or generate fewer tokens (--max-tokens).",
  });
