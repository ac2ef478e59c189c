/** Embeddings of a token for each layer of its own (Gemma 3n, Gemma 4): large tables that are read by the row. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { geglu } from "./activations";
import type { TokenEmbedding } from "./decoder";
import type { Layer } from "./linear";
import type { RMSNorm } from "./norms";

/** The trunk's parts. P is the width of one layer's input, L the number of layers. */
export interface PerLayerTrunk {
  /** (V, L · P) */
  readonly embed_tokens_per_layer: TokenEmbedding;
  /** D → L · P */
  readonly per_layer_model_projection: Layer;
  /** Over P. */
  readonly per_layer_projection_norm: RMSNorm;
}

/** One input (B, T, P) for each layer, of token ids (B, T) and their scaled embeddings h (B, T, D). */
export function perLayerInputs(trunk: PerLayerTrunk, ids: Tensor, h: Tensor): Tensor[] {
  const { embed_tokens_per_layer: table, per_layer_projection_norm: norm } = trunk;
  const width = norm.weight.dim(0);
  // Ids of images and sound lie behind the table's end; they have the row of padding.
  const known = mx.where(ids.less(table.weight.dim(0)), ids, mx.zerosLike(ids));
  const embedded = table.forward(known).multiply(Math.sqrt(width));
  const projected = trunk.per_layer_model_projection.forward(h).multiply(h.dim(-1) ** -0.5);
  const normed = norm.forward(projected.unflatten(-1, [-1, width])).flatten(-2);
  const all = normed.add(embedded).multiply(Math.SQRT1_2);
  return all.split(all.dim(-1) / width, -1);
}

/** A layer's parts. */
export interface PerLayerGate {
  readonly per_layer_input_gate: Layer;
  readonly per_layer_projection: Layer;
  readonly post_per_layer_input_norm: RMSNorm;
}

/** What a layer's own input (B, T, P) adds to hidden states h (B, T, D), which open its gate. */
export function perLayerDelta(layer: PerLayerGate, h: Tensor, input: Tensor): Tensor {
  const gated = geglu(layer.per_layer_input_gate.forward(h), input);
  return layer.post_per_layer_input_norm.forward(layer.per_layer_projection.forward(gated));
}
