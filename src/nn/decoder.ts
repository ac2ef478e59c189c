/** The trunk of a decoder: embedding, layers, final norm. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { KeyValueCache } from "./cache";
import type { Embedding } from "./embedding";
import { layerMasks, type Mask } from "./masks";
import { Module } from "./module";
import { PendingSum, type Residual, RMSNorm } from "./norms";

export interface DecoderLayer extends Module {
  /** How many tokens its attention sees back, itself included; all where absent. */
  readonly window?: number | null;
  /** Whether `x` may be a sum that is still to be made. */
  readonly takesSums?: boolean;
  /** x (B, T, D) → (B, T, D) */
  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual;
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
    let x = inputEmbeddings ?? this.embed_tokens.forward(inputs);
    if (this.embeddingScale !== null) x = x.multiply(mx.array(this.embeddingScale, "bfloat16").astype(x.dtype));
    const masks = layerMasks(x, this.layers, cache);
    let h: Residual = x;
    for (const [i, layer] of this.layers.entries()) {
      h = layer.forward(layer.takesSums ? h : settled(h), masks[i]!, cache?.[i]);
    }
    return this.norm instanceof RMSNorm ? this.norm.branch(h)[1] : this.norm.forward(settled(h));
  }
}

const settled = (residual: Residual) => (residual instanceof PendingSum ? residual.value() : residual);
