/** The memory that models, caches and kept prompts share: who has how much of it. */
import * as mx from "../../mlx";

/** What stays free of the machine's memory: for activations, and for other programs. */
const share = 0.85;

export class MemoryBudget {
  readonly #held = new Map<object, number>();
  readonly #weights = new Map<object, number>();

  /** @param limit bytes; most of what is available now unless said */
  constructor(readonly limit = Math.floor((mx.availableMemory() + mx.activeMemory()) * share)) {}

  /** Bytes of weights, which stay as long as their models do. */
  get weights(): number {
    return sumOf(this.#weights);
  }

  /** How much would be missing if `owner` held so many bytes; 0 or less where there is room. */
  lacking(owner: object, bytes: number): number {
    return this.weights + sumOf(this.#held) - (this.#held.get(owner) ?? 0) + bytes - this.limit;
  }

  /** From now on `owner` holds so many bytes, as caches. */
  hold(owner: object, bytes: number): void {
    put(this.#held, owner, bytes);
  }

  /** From now on `owner` holds so many bytes, as weights. */
  holdWeights(owner: object, bytes: number): void {
    put(this.#weights, owner, bytes);
  }
}

function put(map: Map<object, number>, owner: object, bytes: number): void {
  if (bytes > 0) map.set(owner, bytes);
  else map.delete(owner);
}

function sumOf(map: ReadonlyMap<object, number>): number {
  let sum = 0;
  for (const bytes of map.values()) sum += bytes;
  return sum;
}
