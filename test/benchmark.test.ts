/** `mlxlm benchmark`: lines, JSON, and mlx-lm alongside, played by a script that prints what mlx-lm prints. */
import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readTrial } from "../src/evaluate/reference-benchmark";

const main = join(import.meta.dir, "../cmd/main.ts");
const scratch = mkdtempSync(join(tmpdir(), "mlxlm-benchmark-"));
afterAll(() => rmSync(scratch, { recursive: true }));

async function benchmark(...words: string[]) {
  const command = [process.execPath, main, "benchmark", "--model", "demo", "-p", "8", "-g", "4", ...words];
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "pipe" });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, problems, code };
}

/** A Python that has mlx-lm 9.9, or what `body` says. */
function python(
  name: string,
  body = 'echo "Trial 1:  prompt_tps=10.0, generation_tps=2.5, peak_memory=1.5, total_time=3.0"',
) {
  const path = join(scratch, name);
  writeFileSync(path, `#!/bin/sh\nif [ "$1" = -c ]; then echo 9.9; exit; fi\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

const figures = String.raw`prompt_tps=\d+\.\d{3}, generation_tps=\d+\.\d{3}, peak_memory=\d+\.\d{3}`;

describe("mlxlm benchmark", () => {
  test("prints mlx-lm's lines", async () => {
    const { out, code } = await benchmark("-n", "2");
    const lines = [
      "Running warmup\\.\\.",
      "Timing with prompt_tokens=8, generation_tokens=4, batch_size=1\\.",
      `Trial 1:  ${figures}, total_time=\\d+\\.\\d{3}`,
      `Trial 2:  ${figures}, total_time=\\d+\\.\\d{3}`,
      `Averages: ${figures}`,
    ];
    expect(out).toMatch(new RegExp(`^${lines.join("\n")}\n$`));
    expect(code).toBe(0);
  });

  test("--json gives one object, whose averages are the means", async () => {
    const { out, code } = await benchmark("-n", "3", "--json");
    const { trials, averages, ...facts } = JSON.parse(out);
    expect(facts).toMatchObject({ model: "demo", prompt_tokens: 8, generation_tokens: 4, batch_size: 1 });
    expect(trials).toHaveLength(3);
    for (const name of ["prompt_tps", "generation_tps", "peak_memory"]) {
      const values = trials.map((trial: Record<string, number>) => trial[name]!);
      expect(Math.min(...values)).toBeGreaterThan(0);
      expect(averages[name]).toBeCloseTo((values[0] + values[1] + values[2]) / 3, 9);
    }
    expect(code).toBe(0);
  });

  test("--batch-size runs several prompts side by side", async () => {
    const { out, code } = await benchmark("-n", "1", "-b", "3", "--json");
    const { batch_size, trials } = JSON.parse(out);
    expect([batch_size, trials.length]).toEqual([3, 1]);
    expect(trials[0].generation_tps).toBeGreaterThan(0);
    expect(code).toBe(0);
  });

  test("--against runs the other in turn and gives the ratio", async () => {
    const { out, code } = await benchmark("-n", "2", "--json", "--against", python("good"));
    const { averages, against, ratio } = JSON.parse(out);
    expect(against.version).toBe("9.9");
    expect(against.trials).toEqual(
      Array(2).fill({ prompt_tps: 10, generation_tps: 2.5, peak_memory: 1.5, total_time: 3 }),
    );
    expect(ratio.prompt_tps).toBeCloseTo(averages.prompt_tps / 10, 9);
    expect(ratio.peak_memory).toBeCloseTo(averages.peak_memory / 1.5, 9);
    expect(code).toBe(0);
  });

  test.each([
    [() => ["--against", join(scratch, "missing")], 3, /missing cannot be run/],
    [() => ["--against", python("broken", "echo boom >&2; exit 3")], 1, /mlx-lm's benchmark failed: boom/],
    [() => ["--against", python("silent", "echo hello")], 1, /no figures that mlxlm can read: hello/],
    [() => ["--pipeline"], 2, /--pipeline spreads layers over ranks, and there is one process only/],
    [() => ["-g", "0"], 2, /--generation-tokens must be at least 1/],
  ])("%p ends with %d", async (words, code, message) => {
    const run = await benchmark("-n", "1", ...words());
    expect(run.problems).toMatch(message);
    expect(run.code).toBe(code);
  });
});

test.each([
  ["Trial 1:  prompt_tps=nan, generation_tps=1, peak_memory=1, total_time=1"],
  ["Trial 1:  prompt_tps=5.0"],
  ["Averages: prompt_tps=5.0, generation_tps=1, peak_memory=1, total_time=1"],
  [""],
])("%p is no trial", (line) => {
  expect(readTrial(line)).toBeNull();
});
