/** How much memory a model's caches of many tokens need, by the shapes of a few: nothing is computed. */
import { counted } from "../counted";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { withoutMessages } from "../nn";
import { checkRoom } from "../room";

/** Longer than most sliding windows, so that a cache that keeps no more is seen to. */
const longestProbe = 16_384;

/** Bytes of the caches of one sequence that has so many tokens. */
export function cacheBytes(model: LanguageModel, tokens: number): number {
  if (tokens <= longestProbe) return sum(probe(model, tokens).map(({ bytes }) => bytes));
  return cacheGrowth(model)(tokens);
}

/** The same as a function, for many lengths. Below the length that it was probed with it is linear. */
export function cacheGrowth(model: LanguageModel): (tokens: number) => number {
  const whole = probe(model, longestProbe);
  const half = probe(model, longestProbe / 2);
  const layers = whole.map(({ bytes, size }, layer) => {
    const perToken = (bytes - half[layer]!.bytes) / (longestProbe / 2);
    return size < longestProbe ? { fixed: bytes, perToken: 0 } : { fixed: bytes - perToken * longestProbe, perToken };
  });
  return (tokens) => sum(layers.map(({ fixed, perToken }) => fixed + perToken * tokens));
}

const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0);

/** Builds a forward pass of so many tokens, which is never evaluated; what each layer's cache then holds. */
function probe(model: LanguageModel, tokens: number): { bytes: number; size: number }[] {
  const cache = model.makeCache();
  try {
    return mx.scope(() => {
      withoutMessages(() => model.forward(mx.zeros([1, tokens], "uint32"), { cache }));
      return cache.map((layer) => ({
        size: layer.size,
        bytes: sum(mx.treeFlatten(layer.state).map(([, leaf]) => (leaf as Tensor).nbytes ?? 0)),
      }));
    });
  } finally {
    for (const layer of cache) layer.dispose();
  }
}

/** @throws UserError (exit code 5) for so many tokens in each of `sequences` as the memory has no room for */
export function checkCacheRoom(
  model: LanguageModel,
  tokens: number,
  { sequences = 1, available = mx.availableMemory() } = {},
): void {
  const what =
    sequences === 1
      ? `the cache of ${counted(tokens, "token")}`
      : `the caches of ${sequences} times ${counted(tokens, "token")}`;
  checkRoom(sequences * cacheBytes(model, tokens), available, what, "Take fewer tokens, or a smaller model.");
}
