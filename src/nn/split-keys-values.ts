/** The projection that unpacks keys and values of latent attention, as checkpoints have it and as `LatentAttention` does. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { needDtype, needShape } from "./checkpoint-shapes";
import type { LatentAttentionSizes } from "./latent-attention";
import { type Packing, pack, unpack } from "./linear";
import { packingOf } from "./quantize";

type Sizes = Pick<LatentAttentionSizes, "heads" | "plainDims" | "valueDims" | "rank">;

/**
 * `<path>.kv_b_proj` (H · (K + V), rank) → `<path>.embed_q` (H, rank, K) and `<path>.unembed_out` (H, V, rank). What is packed
 * is unpacked and packed anew, since keys are transposed. Changes the map.
 * @throws UserError where the tensors do not fit the sizes
 */
export function splitKeysValues(weights: Map<string, Tensor>, path: string, sizes: Sizes): void {
  const { heads, plainDims, valueDims, rank } = sizes;
  const from = `${path}.kv_b_proj`;
  const weight = weights.get(`${from}.weight`);
  if (!weight) return;
  const rows = heads * (plainDims + valueDims);
  const how = weights.has(`${from}.scales`) ? packingOf(from, rank, weights) : null;
  const dense = how ? unpacked(weights, from, [rows, rank], how) : weight;
  needShape(`${from}.weight`, dense, [rows, rank]);
  for (const kind of ["weight", "scales", "biases"]) weights.delete(`${from}.${kind}`);

  const [keys, values] = dense.reshape(heads, plainDims + valueDims, rank).split([plainDims], 1) as [Tensor, Tensor];
  const parts = { embed_q: mx.contiguous(keys.swapaxes(-1, -2)), unembed_out: mx.contiguous(values) };
  for (const [name, part] of Object.entries(parts)) {
    const tensors = how ? pack(part, how) : { weight: part };
    for (const [kind, tensor] of Object.entries(tensors)) weights.set(`${path}.${name}.${kind}`, tensor);
  }
}

function unpacked(
  weights: ReadonlyMap<string, Tensor>,
  from: string,
  [rows, inputs]: [number, number],
  how: Packing,
): Tensor {
  const part = (kind: string) => weights.get(`${from}.${kind}`);
  const [weight, scales, biases] = [part("weight")!, part("scales")!, part("biases")];
  needShape(`${from}.weight`, weight, [rows, (inputs * how.bits) / 32]);
  needDtype(`${from}.weight`, weight, "uint32");
  needShape(`${from}.scales`, scales, [rows, inputs / how.groupSize]);
  if (biases) needShape(`${from}.biases`, biases, [...scales.shape]);
  return unpack({ weight, scales, biases }, how);
}
