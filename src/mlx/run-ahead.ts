/**
 * How far MLX goes ahead of a GPU. It puts work before it some hundred operations at a time, and what an operation gives takes memory until
 * it has been used: weights that were unpacked for a product above all, half a layer of an 8B model at a time.
 */
import { activeMemory, isAvailable, memoryLimit, peakMemory, setMemoryLimit } from "./devices";

/** Bytes that work may be ahead by. */
const ahead = 2e9;

/** Does some work; beyond so many bytes MLX waits for what it has put before the GPU, if that gives any back. CUDA alone. */
function withinMemory<T>(bytes: number, work: () => T): T {
  const limit = memoryLimit();
  setMemoryLimit(Math.min(limit, bytes));
  try {
    return work();
  } finally {
    setMemoryLimit(limit);
  }
}

/**
 * Does work that needs little memory of its own beside what is held: all that is in use, where no such work is under way. That
 * takes `ahead` at most, so what is in use above it is held as well.
 */
export function sparingly<T>(work: () => T, held = Number.POSITIVE_INFINITY): T {
  if (!isAvailable("cuda")) return work();
  const used = activeMemory();
  return withinMemory(Math.min(used, Math.max(held, used - ahead)) + ahead, work);
}

/** How many bytes a step may have in use, given what steps before it were allowed and what they took at their peak. */
export function nextLimit(limit: number, peak: number): number {
  // Far above its limit is only who needs it.
  return peak > limit + ahead / 2 ? peak + ahead : limit;
}

/** For steps that need about the same memory each: the first shows how much. */
export class StepMemory {
  #limit = 0;

  run<T>(step: () => T): T {
    if (!isAvailable("cuda")) return step();
    const result = withinMemory(this.#limit || activeMemory() + ahead, step);
    this.#limit = nextLimit(this.#limit, peakMemory());
    return result;
  }
}
