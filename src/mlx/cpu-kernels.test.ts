/** Kernels of ours on the CPU: no further from float64 than MLX's own, on every instruction set that this machine has. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import * as mx from ".";

type Errors = Record<string, [largest: number, mean: number]>;

function errorsWith(name: string, env: Record<string, string>): Errors {
  const script = join(import.meta.dir, "../../test", name);
  const run = Bun.spawnSync([process.execPath, script], { env: { ...process.env, ...env } });
  if (run.exitCode !== 0) throw new Error(run.stderr.toString());
  return JSON.parse(run.stdout.toString());
}

/** What rounding a result to its dtype costs at most; in float32, sums in another order. */
const roundings = [
  ["bfloat16", 2 ** -8],
  ["float16", 2 ** -11],
  ["float32", 2e-6],
] as const;

describe.skipIf(mx.defaultDevice() !== "cpu").each([
  ["products", "cpu-product-errors.ts"],
  ["norms, rotations, gates, softmax, attention", "cpu-layer-errors.ts"],
])("%s", (_, script) => {
  const theirs = errorsWith(script, { MLXLM_CPU_KERNELS: "0" });
  for (const isa of ["plain", "avx2", "avx512", "avx512_bf16"]) {
    test(isa, () => {
      const ours = errorsWith(script, { MLXLM_CPU_ISA: isa, MLXLM_CPU_KERNELS: "1" });
      expect(Object.keys(ours)).toEqual(Object.keys(theirs));
      // Ours may be the worse one only where both are as good as the dtype lets them be.
      const worse = Object.entries(ours).filter(([name, [largest, mean]]) => {
        const rounding = roundings.find(([dtype]) => name.includes(dtype))![1];
        const [theirLargest, theirMean] = theirs[name]!;
        // The mean of a single value is no mean.
        const onAverage = mean === largest ? rounding : rounding / 2;
        return !(largest <= Math.max(1.1 * theirLargest, rounding) && mean <= Math.max(theirMean, onAverage));
      });
      expect(worse).toEqual([]);
    }, 120_000);
  }
});
