/** `mlxlm benchmark`: speed of a model on this machine, beside mlx-lm's where asked. */
import { command } from "../src/cli/command";
import { ExitCode, UserError } from "../src/errors";
import type { BenchmarkOptions } from "../src/evaluate/benchmark";
import { benchmarkFlags } from "./benchmark.flags";

export default command({
  name: "benchmark",
  summary: "Measure how fast a model runs",
  examples: [
    "mlxlm benchmark --model demo",
    "mlxlm benchmark --model mlx-community/Qwen3-4B-4bit -p 2048 -g 128 --json",
    "mlxlm benchmark --model ./my-model --against ~/venv/bin/python",
  ],
  flags: benchmarkFlags,
  computes: true,
  ranks: true,

  async run({ flags, out, signal }) {
    // What needs the native library is loaded here, so that --help does not.
    const mx = await import("../src/mlx");
    const { openModel } = await import("../src/cli/model");
    const { withDemoNamed } = await import("../src/demo/folder");
    const { benchmark } = await import("../src/evaluate/benchmark");
    const { findReference, runReferenceTrial } = await import("../src/evaluate/reference-benchmark");

    const usual = mx.deviceCount("gpu") > 0 ? "gpu" : "cpu";
    if (flags.against !== undefined && flags.device !== undefined && flags.device !== usual) {
      throw new UserError(`--against measures on the ${usual}, as mlx-lm cannot be told another device`, {
        code: ExitCode.usage,
        hint: "Leave --device out.",
      });
    }
    const reference = flags.against === undefined ? null : await findReference(flags.against, signal);
    mx.random.seed(0);

    const open = (folder?: string) => openModel(folder ?? flags.model, out, signal, flags);
    const rival = reference && {
      version: reference.version,
      runTrial: (model: string, options: BenchmarkOptions) => runReferenceTrial(reference, { ...options, model }),
    };
    const result = await benchmark(
      open,
      rival,
      { ...flags, signal },
      {
        onWarmup: () => out.text("Running warmup..\n"),
        onStart: (facts) => out.text(`Timing with ${line(facts, 0)}.\n`),
        onTrial: (trial, count) => out.text(`Trial ${count}:  ${line(trial)}\n`),
        onRivalTrial: (trial, count) => out.text(`Trial ${count} (mlx-lm ${rival!.version}):  ${line(trial)}\n`),
      },
    );
    if (!result) {
      process.exitCode = ExitCode.interrupted;
      return;
    }
    out.text(`Averages: ${line(result.averages)}\n`);
    if (result.against) {
      out.text(`Averages (mlx-lm ${result.against.version}): ${line(result.against.averages)}\n`);
      out.text(`Ratio: ${line(result.ratio!)}\n`);
    }
    out.result({ ...result, model: withDemoNamed(result.model) });
  },
});

/** `name=value, …`, as mlx-lm prints it. */
function line(figures: object, digits = 3): string {
  return Object.entries(figures)
    .map(([name, value]) => `${name}=${(value as number).toFixed(digits)}`)
    .join(", ");
}
