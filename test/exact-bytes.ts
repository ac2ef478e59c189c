/** Bytes in use, so that two counts of the same state are the same number. */
import { afterAll, beforeAll } from "bun:test";
import * as mx from "../src/mlx";

/**
 * Called in a test file, or in a `describe`: its tests count exact bytes. MLX may hand out a freed buffer again for an array
 * that is smaller; which one depends on when its threads freed it, and on the tests before. Here each array gets a buffer of its own size.
 */
export function countExactBytes(): void {
  let limit: number;
  beforeAll(() => {
    limit = mx.setCacheLimit(0);
    mx.clearCache();
  });
  afterAll(() => void mx.setCacheLimit(limit));
}

/** Bytes of all arrays, once what is being computed is done: an array that is on its way counts, else. */
export function bytesInUse(): number {
  mx.synchronize();
  return mx.activeMemory();
}
