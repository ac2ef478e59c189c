/** Model types and what they can do, for people. */
import type { CatalogueEntry } from "../models/catalogue";
import { fittingTable } from "./table";

/** What the kinds of caches are called in tables. */
const cacheWords: Readonly<Record<string, string>> = {
  KVCache: "full",
  RotatingKVCache: "window",
  ChunkedKVCache: "chunk",
  ArraysCache: "state",
  CacheList: "list",
  LoneCacheList: "list",
  ConcatenateKVCache: "joined",
};

/** "full, window" */
export const cachesInWords = ({ caches }: CatalogueEntry): string =>
  caches.map((name) => cacheWords[name] ?? name).join(", ") || "-";

/** "in, out" */
export function ggufInWords({ gguf }: CatalogueEntry): string {
  const ways = [...(gguf?.reads ? ["in"] : []), ...(gguf?.writes ? ["out"] : [])];
  return ways.join(", ") || "-";
}

const yes = (is: boolean) => (is ? "yes" : "-");

/** The table of `mlxlm models arch`. */
export function modelTypesTable(entries: readonly CatalogueEntry[]): string {
  const rows = entries.map((entry) => [
    entry.same_as === null ? entry.model_type : `${entry.model_type} = ${entry.same_as}`,
    entry.family,
    cachesInWords(entry),
    entry.kv_bits === "none" ? "-" : entry.kv_bits,
    yes(entry.lora),
    yes(entry.quantizers.includes("awq")),
    ggufInWords(entry),
    yes(entry.batching),
    yes(entry.mtp),
    entry.ranks === "none" ? "-" : entry.ranks,
  ]);
  return fittingTable(
    ["MODEL TYPE", "FAMILY", "CACHES", "KV-BITS", "LORA", "AWQ", "GGUF", "BATCH", "MTP", "RANKS"],
    rows,
  );
}
