/**
 * The tests of numbers, once for each kind of processor that this one can act as: `bun run numeric`. A processor's vectors
 * are as long as it has them, and sums are made in another order, so their last bits differ. A line for each kind, and
 * the tests that fail; exit code 1 where one does.
 */
import { join } from "node:path";
import { abilities } from "./processor";

/** What only holds where MLX multiplies by the same BLAS as Python did: two experts' scores are almost the same there. */
const turnsOnRounding = "deepseek_v41 greedy tokens in bfloat16, by MLX's own operations";

/** Runs of `bun test`: of the models those that between them have every block of src/nn. */
const suites: readonly (readonly string[])[] = [
  [
    ...["ops", "quantize", "gradients", "checkpoint"].map((name) => `test/parity/${name}.test.ts`),
    ...["test/parity/drift.test.ts", "src/nn", "src/generate/kv-quantization.test.ts"],
    ...["src/mlx/cpu-kernels.test.ts", "src/mlx/blocks.test.ts"],
  ],
  [
    ...["test/parity/models.test.ts", "test/parity/serving.test.ts"],
    ...["--test-name-pattern", `^(?!${turnsOnRounding}).*(qwen3|gemma3|mixtral|gpt_oss|deepseek|mamba)`],
  ],
  ["src/tune/trainer.test.ts", "--test-name-pattern", "(qwen3|gpt_oss) lora adam"],
];

const processors: readonly { env: Record<string, string>; needs?: string }[] = [
  { env: { MLXLM_CPU_ISA: "avx512" }, needs: "avx512f" },
  { env: { MLXLM_CPU_ISA: "avx2" }, needs: "avx2" },
  { env: { MLXLM_CPU_ISA: "plain" } },
  { env: { OPENBLAS_CORETYPE: "SkylakeX" }, needs: "avx512f" },
  { env: { OPENBLAS_CORETYPE: "Haswell" }, needs: "avx2" },
  { env: { OPENBLAS_CORETYPE: "Prescott" }, needs: "sse3" },
];

type Kind = (typeof processors)[number];

const nameOf = ({ env }: Kind) => Object.entries(env)[0]!.join("=");

/** Runs the suites as on that kind of processor and says how they went: how many tests failed. */
async function run(kind: Kind): Promise<number> {
  const began = performance.now();
  let passed = 0;
  const failed: string[] = [];
  for (const suite of suites) {
    const child = Bun.spawn([process.execPath, "test", "--timeout", "120000", ...suite], {
      cwd: join(import.meta.dir, ".."),
      env: { ...process.env, ...kind.env },
      stdout: "ignore",
      stderr: "pipe",
    });
    const report = await child.stderr.text();
    const own = [...report.matchAll(/^\(fail\) (.*)$/gm)].map(([, title]) => title!);
    if ((await child.exited) !== 0 && own.length === 0) own.push(report.trim().split("\n").slice(-5).join("\n"));
    failed.push(...new Set(own));
    passed += Number(/^ *(\d+) pass$/m.exec(report)?.[1] ?? 0);
  }
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  console.log(`${nameOf(kind)}: ${passed} passed, ${failed.length} failed, ${seconds} s`);
  for (const title of failed) console.log(`  ${title}`);
  return failed.length;
}

const able = abilities();
const waiting = processors.filter((kind) => {
  const can = !kind.needs || able.has(kind.needs);
  if (!can) console.log(`${nameOf(kind)}: left out, this processor has no ${kind.needs}`);
  return can;
});

/** One kind after the other. Most of these tests keep one core busy, so there are two such rows. */
async function failuresOfRow(): Promise<number> {
  let failures = 0;
  for (let kind = waiting.shift(); kind; kind = waiting.shift()) failures += await run(kind);
  return failures;
}
const failures = await Promise.all([failuresOfRow(), failuresOfRow()]);
process.exit(failures.some((count) => count > 0) ? 1 : 0);
