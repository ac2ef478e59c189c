/** The types of masks: what caches and attention both speak of. */
import type { Tensor } from "../mlx";

/** Null: to all. "causal": to all up to itself. An array: where it is true, broadcastable to (B, H, T, S). */
export type Mask = Tensor | "causal" | null;

export interface MaskOptions {
  /** How many of the latest tokens a token may attend to, itself included. */
  window?: number | null;
  /** Ask for an array where "causal" would do. */
  asArray?: boolean;
}
