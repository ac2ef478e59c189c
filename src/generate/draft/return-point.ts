/** A place in what caches hold that they can be taken back to. */
import * as mx from "../../mlx";
import type { Cache } from "../../models";
import { kindNamed, kindOf, RotatingKVCache, savedStateOf } from "../../nn";

/** The caches that caches are made of. */
const leaves = (cache: readonly Cache[]): Cache[] =>
  cache.flatMap((layer) => {
    const kind = kindOf(layer);
    const parts = kind?.isWhole ? undefined : kind?.parts?.(layer);
    return parts ? leaves(parts) : [layer];
  });

/** Whether caches can be taken back to where they are now: each forgets its last tokens, or can be copied. */
export const canReturn = (cache: readonly Cache[]): boolean =>
  leaves(cache).every((layer) => layer.isTrimmable() || kindOf(layer) !== undefined);

/**
 * How many tokens caches hold before they drop some between the first ones and the latest. From there on a token sees others in a
 * pass of several than by itself: the first ones fall out of a pass's window.
 */
export const tokensBeforeGap = (cache: readonly Cache[]): number =>
  leaves(cache).reduce(
    (least, layer) => (layer instanceof RotatingKVCache && layer.keepsFirst ? Math.min(least, layer.limit) : least),
    Number.POSITIVE_INFINITY,
  );

/**
 * Holds the present state of caches that cannot forget single tokens: recurrent state, windows that are full. Arrays are
 * shared with them until they change.
 */
export class ReturnPoint {
  #held: (readonly [layer: Cache, copy: Cache])[];

  /**
   * @param more how many tokens will be read at most before it is decided how many of them are forgotten
   * @param isRigid go back to this point only, whatever the caches can: those of other processes may not
   */
  constructor(
    private readonly cache: readonly Cache[],
    more: number,
    private readonly isRigid = false,
  ) {
    const coarse = leaves(cache).filter((layer) => !layer.isTrimmable(more));
    this.#held = mx.scope(() => coarse.map((layer) => [layer, copyOf(layer)] as const));
  }

  /** Whether caches can go back to any token since; else only to this point. */
  get isFine(): boolean {
    return this.#held.length === 0 && !this.isRigid;
  }

  /**
   * Takes all caches back.
   * @param count how many tokens were read since
   * @param kept how many of them stay, where that can be chosen
   * @returns how many stay
   */
  back(count: number, kept: number): number {
    const stays = this.isFine ? kept : 0;
    const held = new Set(this.#held.map(([layer]) => layer));
    // As they are now: one that has been packed since stands in the other's place.
    if (count > stays) for (const layer of leaves(this.cache)) if (!held.has(layer)) layer.trim(count - stays);
    for (const [layer, copy] of this.#held) layer.state = copy.state;
    this.dispose();
    return stays;
  }

  dispose(): void {
    for (const [, copy] of this.#held) copy.dispose();
    this.#held = [];
  }
}

function copyOf(layer: Cache): Cache {
  const kind = kindOf(layer)!;
  return kind.restore(savedStateOf(layer) as Parameters<typeof kind.restore>[0], kindNamed);
}
