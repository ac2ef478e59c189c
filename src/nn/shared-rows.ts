/**
 * Layers without keys and values of their own: they attend to those of an earlier layer, and have no cache. Brandon et al.
 * 2024, arXiv:2405.12981.
 */
import type { Tensor } from "../mlx";
import type { Cache, KeyValueCache } from "./cache";
import type { Rows } from "./cache/rows";
import type { DecoderLayer } from "./decoder";
import { fullAttention, layerMasks, type Mask } from "./masks";
import { Residual } from "./residual";

/** What one layer's queries attend to, for later layers. */
export interface SharedRows {
  /** (B, Hkv, S, D), the latest tokens' included */
  keys: Rows;
  values: Rows;
  /** Position of the first query: the cache that gave the rows is past it. */
  offset: number | Tensor;
}

/** What a layer gives whose rows later layers attend to. */
export class SharingResidual extends Residual {
  constructor(
    value: Tensor,
    readonly rows: SharedRows,
  ) {
    super(value);
  }
}

/** A layer that may take an input of its own beside the stream, and another layer's rows. */
export interface SharingLayer<C extends Cache = KeyValueCache> extends DecoderLayer<C> {
  forward(x: Residual, mask: Mask, cache?: C, input?: Tensor, rows?: SharedRows): Residual;
}

/**
 * For each layer the one whose rows it attends to: itself, or for the last `shared` ones the last of the same type ahead of
 * them; −1 where there is none.
 */
export function rowOwners(types: readonly string[], shared: number): number[] {
  const own = types.slice(0, types.length - shared);
  return types.map((type, i) => (i < own.length ? i : own.lastIndexOf(type)));
}

export interface SharingOptions {
  /** One for each layer that has its own rows. */
  cache?: readonly KeyValueCache[];
  /** For each layer, as `rowOwners` has them. */
  owners: readonly number[];
  /** An input of its own for each layer. */
  inputs?: readonly Tensor[];
}

/** Hidden states x (B, T, …) through layers of which some share their rows. */
export function throughSharingLayers(
  x: Tensor,
  layers: readonly SharingLayer[],
  { cache, owners, inputs }: SharingOptions,
): Residual {
  const masks = layerMasks(
    x,
    layers.map(({ mask }) => mask ?? fullAttention),
    cache,
  );
  const given = new Map<number, SharedRows>();
  return layers.reduce((h, layer, i) => {
    const next = layer.forward(h, masks[i]!, cache?.[i], inputs?.[i], given.get(owners[i]!));
    if (next instanceof SharingResidual) given.set(i, next.rows);
    return next;
  }, new Residual(x));
}
