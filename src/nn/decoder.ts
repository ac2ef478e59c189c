/** The trunk of a decoder: embedding, layers, final norm. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { KeyValueCache } from "./cache";
import type { Embedding } from "./embedding";
import { layerMasks, type Mask } from "./masks";
import { Module } from "./module";

export interface DecoderLayer extends Module {
  /** How many tokens its attention sees back, itself included; all where absent. */
  readonly window?: number | null;
  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor;
}

export interface ForwardOptions {
  /** One for each layer, changed in place. */
  cache?: readonly KeyValueCache[];
  /** (B, T, D): used in place of the tokens' embeddings. */
  inputEmbeddings?: Tensor;
}

export class Decoder extends Module {
  constructor(
    readonly embed_tokens: Embedding,
    readonly layers: DecoderLayer[],
    readonly norm: Module & { forward(x: Tensor): Tensor },
    /** Factor on the embeddings. It is rounded to bfloat16, as the models that have one were trained with it so. */
    readonly embeddingScale: number | null = null,
  ) {
    super();
  }

  /** Token ids (B, T) → hidden states (B, T, D) */
  forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions = {}): Tensor {
    let h = inputEmbeddings ?? this.embed_tokens.forward(inputs);
    if (this.embeddingScale !== null) h = h.multiply(mx.array(this.embeddingScale, "bfloat16").astype(h.dtype));
    const masks = layerMasks(h, this.layers, cache);
    for (const [i, layer] of this.layers.entries()) h = layer.forward(h, masks[i]!, cache?.[i]);
    return this.norm.forward(h);
  }
}
