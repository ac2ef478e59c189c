/** How many bytes a sequence of some length takes in a model's caches, told from a few lengths. */
import { cacheBytes } from "../../generate/cache-room";
import type { LanguageModel } from "../../models";

/** Windows end between these lengths, if they end at all; beyond the last, growth goes on. */
const lengths = [256, 1024, 4096, 16_384, 32_768];

export class CacheSizes {
  readonly #bytes = new Map<number, number>();

  constructor(private readonly model: LanguageModel) {}

  /** Bytes of one sequence with so many tokens; nothing is computed for it. */
  of(tokens: number): number {
    const [first] = lengths;
    if (tokens <= first!) return this.#at(first!);
    const above = lengths.findIndex((length) => length >= tokens);
    const i = above < 0 ? lengths.length - 1 : above;
    const [from, to] = [lengths[i - 1]!, lengths[i]!];
    return this.#at(from) + ((this.#at(to) - this.#at(from)) * (tokens - from)) / (to - from);
  }

  #at(length: number): number {
    const known = this.#bytes.get(length) ?? cacheBytes(this.model, length);
    this.#bytes.set(length, known);
    return known;
  }
}
