/** What models have read, kept for prompts that begin alike. */
import * as mx from "../mlx";
import type { Cache } from "../models";
import { bytesOf, type CacheState, kindNamed, kindOf, savedStateOf } from "../nn";
import { elsewhere, forgetElsewhere } from "./ranks/caches-elsewhere";

export interface PrefixStoreOptions {
  /** How many conversations, those that are lent included. */
  maxEntries?: number;
  /** Bytes of all caches that are not lent. */
  maxBytes?: number;
  /** Take caches only as they are, and cut none back: other processes have parts of them that forget otherwise. */
  isRigid?: boolean;
}

/** Where an answer looks for what has been read before. */
export interface Prefixes {
  /**
   * Lends a cache that holds as much of the prompt as possible, but never all of it: an empty one where nothing fits.
   * The receiver settles or closes the loan.
   */
  take(prompt: readonly number[]): Loan;
}

interface Entry {
  tokens: readonly number[];
  layers: Cache[];
}

/**
 * Holds the caches of several conversations and forgets those that were not used for the longest time. A cache is lent to
 * one generation at a time: as it is where it is the beginning of the prompt, else a copy, cut back to what both share.
 */
export class PrefixStore implements Prefixes {
  /** The least recently used first. */
  #entries: Entry[] = [];
  #lent = 0;
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  readonly #isRigid: boolean;

  /** @param make an empty cache, as `model.makeCache` gives it */
  constructor(
    private readonly make: () => Cache[],
    { maxEntries = 1, maxBytes = Number.POSITIVE_INFINITY, isRigid = false }: PrefixStoreOptions = {},
  ) {
    this.#isRigid = isRigid;
    this.#maxEntries = maxEntries;
    this.#maxBytes = maxBytes;
  }

  /** How many conversations are held. */
  get size(): number {
    return this.#entries.length;
  }

  /** Bytes of the caches that are held. Caches that share buffers count each. */
  get nbytes(): number {
    return this.#entries.reduce((sum, { layers }) => sum + bytesOf(layers), 0);
  }

  take(prompt: readonly number[]): Loan {
    const found = this.#take(prompt);
    this.#lent += 1;
    this.#evict(this.#maxEntries - this.#lent);
    const back = (layers: Cache[], tokens: readonly number[] | null) => {
      this.#lent -= 1;
      if (tokens) this.#put(layers, tokens);
      else dispose(layers);
    };
    return new Loan(found?.layers ?? this.make(), found?.tokens.length ?? 0, back);
  }

  #take(prompt: readonly number[]): Entry | null {
    const candidates = this.#entries
      .map((entry) => ({ entry, shared: Math.min(commonLength(entry.tokens, prompt), prompt.length - 1) }))
      .filter(({ entry, shared }) => shared > 0 && this.#canCut(entry.layers, entry.tokens.length - shared))
      // Of equal ones the shortest, which has the least to forget.
      .sort((a, b) => b.shared - a.shared || a.entry.tokens.length - b.entry.tokens.length);
    const [best] = candidates;
    if (!best) return null;
    const { entry, shared } = best;
    this.#entries = this.#entries.filter((one) => one !== entry);
    const excess = entry.tokens.length - shared;
    if (excess === 0) return entry;
    const copy = this.#maxEntries > 1 ? copied(entry.layers) : null;
    if (copy) this.#entries.push(entry);
    const layers = copy ?? entry.layers;
    if (cut(layers, excess)) return { tokens: prompt.slice(0, shared), layers };
    dispose(layers);
    return null;
  }

  #canCut(layers: readonly Cache[], count: number): boolean {
    return this.#isRigid ? count === 0 : canCut(layers, count);
  }

  #put(layers: Cache[], tokens: readonly number[]): void {
    // What the new one can be cut back to needs no place of its own.
    const covers = ({ tokens: own }: Entry) =>
      commonLength(own, tokens) === own.length && this.#canCut(layers, tokens.length - own.length);
    const covered = this.#entries.filter(covers);
    for (const { layers } of covered) dispose(layers);
    this.#entries = this.#entries.filter((entry) => !covered.includes(entry));
    this.#entries.push({ tokens, layers });
    this.#evict(this.#maxEntries - this.#lent);
  }

  #evict(most: number): void {
    while (this.#entries.length > Math.max(most, 0) || (this.#entries.length > 0 && this.nbytes > this.#maxBytes)) {
      dispose(this.#entries.shift()!.layers);
    }
  }

  /** Forgets everything that is not lent, and gives the memory back. */
  clear(): void {
    for (const { layers } of this.#entries) dispose(layers);
    this.#entries = [];
  }
}

/** A cache that a generation uses, until it is settled or closed. */
export class Loan {
  #back: ((layers: Cache[], tokens: readonly number[] | null) => void) | null;

  /** @param count how many of the prompt's tokens the layers hold */
  constructor(
    readonly layers: Cache[],
    readonly count: number,
    back: (layers: Cache[], tokens: readonly number[] | null) => void,
  ) {
    this.#back = back;
  }

  /** Gives back what the layers hold now, or other layers in their place. */
  settle(tokens: readonly number[], layers = this.layers): void {
    const back = this.#back;
    this.#back = null;
    if (layers !== this.layers) dispose(this.layers);
    back?.(layers, tokens.length > 0 ? tokens : null);
  }

  /** Frees the layers where nobody has said what they hold. */
  close(): void {
    this.#back?.(this.layers, null);
    this.#back = null;
  }
}

/** How many tokens two sequences begin with alike. */
export function commonLength(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}

export function dispose(layers: readonly Cache[]): void {
  forgetElsewhere(layers);
  for (const layer of layers) layer.dispose();
}

/** Whether caches can forget their last `count` tokens, here and where other processes have parts of them. */
export const canCut = (layers: readonly Cache[], count: number) =>
  count === 0 || ((elsewhere(layers)?.owner.canCut ?? true) && layers.every((layer) => layer.isTrimmable()));

export function cut(layers: readonly Cache[], count: number): boolean {
  const parts = elsewhere(layers);
  if (count > 0) parts?.owner.cut(parts.number, count);
  return layers.every((layer) => layer.trim(count) === count);
}

/** Caches with the same contents, which share memory until one of them changes; null for a kind that has no copies. */
export function copied(layers: readonly Cache[]): Cache[] | null {
  if (!layers.every(kindOf)) return null;
  const copy = mx.scope(() =>
    layers.map((layer) => kindOf(layer)!.restore(savedStateOf(layer) as readonly CacheState[], kindNamed)),
  );
  const parts = elsewhere(layers);
  parts?.owner.copied(parts.number, copy);
  return copy;
}
