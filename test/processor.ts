/** What the processor can do. */
import { readFileSync } from "node:fs";

/** By Linux's names; nothing elsewhere. */
export function abilities(): Set<string> {
  if (process.platform !== "linux" || process.arch !== "x64") return new Set();
  const flags = /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "";
  // Linux calls SSE3 by its first name.
  return new Set(
    flags
      .trim()
      .split(" ")
      .map((name) => (name === "pni" ? "sse3" : name)),
  );
}

/** A bound for what turns on rounding: the second where a BLAS has no kernels for AVX-512, and sums in another order than it did when the bound was found. */
export const boundBySums = (usual: number, others: number) => (abilities().has("avx512f") ? usual : others);
