/** Several samples in each row of a batch, none of which sees another: what layers ask a cache, for a pass without one. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Mask, MaskOptions } from "../mask";
import type { KeyValueCache } from "./cache";

/** It keeps nothing, and serves all layers of a pass. */
export class PackedCache implements KeyValueCache {
  readonly state = null;
  readonly size = 0;
  readonly nbytes = 0;
  readonly empty = true;

  /** @param offset of each token its position in its sample, (B, T) @param segments the number of that sample, (B, T) */
  constructor(
    readonly offset: Tensor,
    readonly segments: Tensor,
  ) {}

  update(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    return [keys, values];
  }

  /** (B, 1, T, T) */
  makeMask(length: number, { window }: MaskOptions = {}): Mask {
    const places = mx.arange(length);
    const [rows, columns] = [places.expandDims(1), places.expandDims(0)];
    const own = this.segments.expandDims([1, 3]).equal(this.segments.expandDims([1, 2]));
    const seen = own.bitwiseAnd(rows.greaterEqual(columns));
    return window ? seen.bitwiseAnd(rows.less(columns.add(window))) : seen;
  }

  isTrimmable(): boolean {
    return false;
  }

  trim(): number {
    return 0;
  }

  dispose(): void {}
}
