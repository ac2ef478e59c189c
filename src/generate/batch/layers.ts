/** The caches of a batch, one for each layer, changed together. */
import type { Cache } from "../../models";
import { type BatchCache, mergeCaches } from "../../nn";

/** @param sequences the layers' caches of each sequence; they are copied */
export function mergeLayers(sequences: readonly (readonly Cache[])[]): BatchCache[] {
  return sequences[0]!.map((_, layer) => mergeCaches(sequences.map((caches) => caches[layer]!)));
}

/** @param areAnswered whether a token is added to each sequence next, in room that is left for it */
export function extendLayers(layers: readonly BatchCache[], others: readonly BatchCache[], areAnswered = false): void {
  for (const [i, layer] of layers.entries()) layer.extend(others[i]!, areAnswered);
}

export function filterLayers(layers: readonly BatchCache[], rows: readonly number[]): void {
  for (const layer of layers) layer.filter(rows);
}

/** A copy of one sequence's caches, which the caller disposes of. */
export function extractLayers(layers: readonly BatchCache[], row: number): Cache[] {
  return layers.map((layer) => layer.extract(row));
}

export function disposeLayers(layers: readonly Cache[]): void {
  for (const layer of layers) layer.dispose();
}
