/** What a model has read, by its tokens: any number of requests go on from one and the same beginning. */
import { canCut, copied, cut, dispose, Loan, type Prefixes } from "../../generate/prefix-store";
import type { Cache } from "../../models";
import { bytesOf } from "../../nn";
import { RadixTree } from "./radix-tree";

export interface RadixPrefixesOptions {
  /** How many are kept; none where 0. */
  maxEntries: number;
  /** Bytes of all caches, as their arrays have them. */
  maxBytes: number;
  /** Told how many bytes are held. */
  onChange?: (bytes: number) => void;
}

export interface Prefix {
  /** With the sign ahead of them, where they have one. */
  tokens: readonly number[];
  layers: Cache[];
  bytes: number;
}

/** What is kept, without a sign or behind one. */
export interface KeptPrefixes extends Prefixes {
  /** Keeps caches that stand for these tokens, and owns them. */
  put(layers: Cache[], tokens: readonly number[]): void;
  /** The least recently used first. */
  readonly entries: Iterable<Prefix>;
  clear(): void;
}

/** A prefix of one token saves nothing. */
const least = 2;

export class RadixPrefixes implements KeptPrefixes {
  readonly #tree = new RadixTree<Prefix>();
  /** The least recently used first. */
  readonly #entries = new Set<Prefix>();
  #bytes = 0;

  /** @param make an empty cache, as `model.makeCache` gives it */
  constructor(
    private readonly make: () => Cache[],
    private readonly options: RadixPrefixesOptions,
  ) {}

  get size(): number {
    return this.#entries.size;
  }

  get nbytes(): number {
    return this.#bytes;
  }

  /** All that is kept without a sign, the least recently used first. */
  get entries(): Iterable<Prefix> {
    return [...this.#entries].filter(({ tokens }) => tokens[0]! >= 0);
  }

  take(prompt: readonly number[]): Loan {
    return this.#lend(prompt, []);
  }

  /**
   * What is read with an adapter is another thing than the same tokens without: it is kept apart behind a sign, a number
   * that no token has. The limits are for all together.
   */
  behind(sign: number): KeptPrefixes {
    const all = this.#entries;
    return {
      take: (prompt) => this.#lend(prompt, [sign]),
      put: (layers, tokens) => this.put(layers, [sign, ...tokens]),
      get entries() {
        return [...all].flatMap((entry) =>
          entry.tokens[0] === sign ? [{ ...entry, tokens: entry.tokens.slice(1) }] : [],
        );
      },
      clear: () => {
        for (const entry of all) if (entry.tokens[0] === sign) this.#drop(entry);
      },
    };
  }

  #lend(prompt: readonly number[], sign: readonly number[]): Loan {
    const found = this.#find([...sign, ...prompt]);
    const layers = found?.layers ?? this.make();
    return new Loan(layers, found ? found.count - sign.length : 0, (given, tokens) => {
      if (tokens) this.put(given, [...sign, ...tokens]);
      else dispose(given);
    });
  }

  /** A copy of what holds the most of the prompt, but not all of it. */
  #find(prompt: readonly number[]): { layers: Cache[]; count: number } | null {
    const most = prompt.length - 1;
    const whole = this.#tree.prefixesOf(prompt).findLast(({ length }) => length >= least && length <= most);
    const { shared, longer } = this.#tree.beyond(prompt);
    const wanted = Math.min(shared, most);
    // Of those that can be cut back, the shortest, which has the least to forget. The prompt itself may be one of them.
    const candidates = [...longer, ...this.#tree.prefixesOf(prompt).filter(({ length }) => length > most)];
    const cuttable = candidates
      .filter(({ value, length }) => canCut(value.layers, length - wanted))
      .sort((a, b) => a.length - b.length);
    const [best] = wanted > (whole?.length ?? least - 1) ? cuttable : [];
    const from = best ?? whole;
    if (!from) return null;
    const layers = copied(from.value.layers);
    if (!layers) return null;
    this.#touch(from.value);
    const count = best ? wanted : from.length;
    if (cut(layers, from.length - count)) return { layers, count };
    dispose(layers);
    return null;
  }

  /** Keeps caches that stand for these tokens, and owns them. What they can be cut back to needs no place of its own. */
  put(layers: Cache[], tokens: readonly number[]): void {
    const bytes = bytesOf(layers);
    const { maxEntries, maxBytes } = this.options;
    const isCovered = () => this.#covers(tokens);
    if (tokens.length < least || maxEntries < 1 || bytes > maxBytes || isCovered()) {
      dispose(layers);
      return;
    }
    for (const { value, length } of this.#tree.prefixesOf(tokens)) {
      if (length === tokens.length || canCut(layers, tokens.length - length)) this.#drop(value);
    }
    const entry = { tokens: [...tokens], layers, bytes };
    this.#tree.set(entry.tokens, entry);
    this.#entries.add(entry);
    this.#count(bytes);
    this.#evict(maxEntries, maxBytes);
  }

  /** Whether one that is kept can be cut back to these tokens; it counts as used. */
  #covers(tokens: readonly number[]): boolean {
    const { shared, longer } = this.#tree.beyond(tokens);
    if (shared < tokens.length) return false;
    const found = longer.find(({ value, length }) => canCut(value.layers, length - tokens.length));
    if (found) this.#touch(found.value);
    return found !== undefined;
  }

  #touch(entry: Prefix): void {
    this.#entries.delete(entry);
    this.#entries.add(entry);
  }

  #drop(entry: Prefix): void {
    this.#tree.delete(entry.tokens);
    this.#entries.delete(entry);
    dispose(entry.layers);
    this.#count(-entry.bytes);
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    this.options.onChange?.(this.#bytes);
  }

  #evict(entries: number, bytes: number): void {
    while (this.#entries.size > 0 && (this.#entries.size > entries || this.#bytes > bytes)) {
      const [oldest] = this.#entries;
      this.#drop(oldest!);
    }
  }

  /** Forgets what was not used for the longest time, until so many bytes are free, or nothing is kept. */
  release(bytes: number): void {
    this.#evict(Number.POSITIVE_INFINITY, Math.max(0, this.#bytes - bytes));
  }

  /** Forgets everything, and gives the memory back. */
  clear(): void {
    this.#evict(0, 0);
  }
}
