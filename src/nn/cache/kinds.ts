/** All kinds of caches. A new one is its own file and a line here. */
import { ArraysCache } from "./arrays";
import { CacheList } from "./cache-list";
import { ChunkedKVCache } from "./chunked";
import { ConcatenateKVCache } from "./concatenate";
import type { CacheKind } from "./kind";
import { KVCache } from "./kv";
import { QuantizedKVCache } from "./quantized";
import { RotatingKVCache } from "./rotating";
import { LoneCacheList } from "./rows-apart";

const kinds: readonly CacheKind[] = [
  KVCache.kind,
  RotatingKVCache.kind,
  QuantizedKVCache.kind,
  ConcatenateKVCache.kind,
  ChunkedKVCache.kind,
  ArraysCache.kind,
  CacheList.kind,
  LoneCacheList.kind,
];

/** The kind with mlx-lm's name of the class. */
export const kindNamed = (name: string): CacheKind | undefined => kinds.find((kind) => kind.name === name);
