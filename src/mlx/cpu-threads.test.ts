/** The settings of CPU kernels by environment and affinity; nonsense counts as nothing. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import * as mx from ".";

const script = join(import.meta.dir, "../../test/cpu-threads.ts");

function product(env: Record<string, string> = {}, ...wrapper: string[]): { threads: number; digest: string } {
  const { MLXLM_THREADS, MLXLM_CPU_ISA, ...rest } = process.env;
  const run = Bun.spawnSync([...wrapper, process.execPath, script], { env: { ...rest, ...env } });
  if (run.exitCode !== 0) throw new Error(run.stderr.toString());
  return JSON.parse(run.stdout.toString());
}

describe.skipIf(process.platform !== "linux" || mx.defaultDevice() !== "cpu")("products on the CPU", () => {
  const usual = product();

  test("take as many threads as they are told", () => {
    expect(product({ MLXLM_THREADS: "1" })).toEqual({ ...usual, threads: 1 });
    expect(product({ MLXLM_THREADS: "5" })).toEqual({ ...usual, threads: 5 });
    expect(product({ MLXLM_THREADS: "100000" })).toEqual({ ...usual, threads: 256 });
  });

  test.each(["", "0", "-3", "many", "4x", "99999999999999999999"])(
    "take their own number of threads where MLXLM_THREADS is %j",
    (threads) => {
      expect(product({ MLXLM_THREADS: threads })).toEqual(usual);
    },
  );

  test.skipIf(!Bun.which("taskset"))("stay on the cores that the process may run on", () => {
    expect(product({}, "taskset", "-c", "0")).toEqual({ ...usual, threads: 1 });
  });

  test("take the best instruction set where MLXLM_CPU_ISA names none", () => {
    expect(product({ MLXLM_CPU_ISA: "sse9" })).toEqual(usual);
    expect(product({ MLXLM_CPU_ISA: "" })).toEqual(usual);
  });

  test("take a lesser instruction set that MLXLM_CPU_ISA names", () => {
    const plain = product({ MLXLM_CPU_ISA: "plain" });
    expect(plain.threads).toBe(usual.threads);
    // Fewer lanes: sums in another order. A machine that has only that one tells nothing.
    if (product({ MLXLM_CPU_ISA: "avx2" }).digest !== plain.digest) expect(plain.digest).not.toBe(usual.digest);
  });
});
