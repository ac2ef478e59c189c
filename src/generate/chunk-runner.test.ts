/** Chunks of a prompt, each built while the one ahead is computed: the same caches as one after the other. */
import { expect, test } from "bun:test";
import * as mx from "../mlx";
import { KVCache } from "../nn";
import { ChunkRunner } from "./chunk-runner";

const chunks = [5, 1100, 1024, 4];

/** Keys and values of all chunks behind each other, each made of the ones ahead of it. */
function filled(ahead: boolean): number[] {
  const runner = new ChunkRunner(ahead);
  const caches = [new KVCache(), new KVCache()];
  for (const [i, length] of chunks.entries()) {
    mx.scope(() => {
      for (const cache of caches) {
        const own = mx.ones([1, 2, length, 8]).multiply(i + 1);
        const before = cache.offset > 0 ? (cache.state[0] as mx.Tensor).sum() : mx.array(0);
        cache.update(own.add(before), own);
      }
    });
    runner.run(caches, length);
  }
  runner.finish(caches);
  // A prompt's caches are nobody else's: its first token is written in place.
  expect(caches.every((cache) => cache.room !== null)).toBe(true);
  const all = mx.scope(() =>
    caches.flatMap((cache) => cache.state.slice(0, 2).map((x) => (x as mx.Tensor).sum().item())),
  );
  runner.dispose();
  for (const cache of caches) cache.dispose();
  return all;
}

test("caches are the same whether or not a chunk is built ahead", () => {
  const handles = mx.liveHandles();
  const apart = filled(false);
  expect(apart[1]).toBe(16 * (5 + 2 * 1100 + 3 * 1024 + 4 * 4));
  expect(filled(true)).toEqual(apart);
  expect(mx.liveHandles()).toBe(handles);
});
