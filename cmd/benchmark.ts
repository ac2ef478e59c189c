/** `mlxlm benchmark`: speed of a model on this machine, beside mlx-lm's where asked. */
import { setTimeout as sleep } from "node:timers/promises";
import { command } from "../src/cli/command";
import { ExitCode, UserError } from "../src/errors";
import type { Speed, Trial } from "../src/evaluate/benchmark";
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

  async run({ flags, out, signal }) {
    // What needs the native library is loaded here, so that --help does not.
    const mx = await import("../src/mlx");
    const { openModel } = await import("../src/cli/model");
    const { averages, randomPrompts, runTrial } = await import("../src/evaluate/benchmark");
    const { findReference, runReferenceTrial } = await import("../src/evaluate/reference-benchmark");

    if (flags.against !== undefined && flags.device !== undefined && flags.device !== mx.defaultDevice()) {
      throw new UserError(`--against measures on the ${mx.defaultDevice()}, as mlx-lm cannot be told another device`, {
        code: ExitCode.usage,
        hint: "Leave --device out.",
      });
    }
    const reference = flags.against === undefined ? null : await findReference(flags.against, signal);
    if (flags.device) mx.setDefaultDevice(flags.device);
    mx.random.seed(0);

    const { promptTokens, generationTokens, batchSize, numTrials } = flags;
    const facts = { prompt_tokens: promptTokens, generation_tokens: generationTokens, batch_size: batchSize };
    const options = { ...flags, signal };
    const wait = () => sleep(flags.delay * 1000, undefined, { signal }).catch(() => {});
    const ours: Trial[] = [];
    const theirs: Trial[] = [];
    let prompts: number[][] | null = null;
    let folder: string | undefined;

    /** Loads the model, warms it up, and measures some trials. */
    const measure = async (count: number) => {
      const opened = await openModel(folder ?? flags.model, out, signal, flags);
      const { model, tokenizer } = opened;
      folder = opened.folder;
      try {
        prompts ??= randomPrompts(model.vocabSize, batchSize, promptTokens);
        if (ours.length === 0) out.text("Running warmup..\n");
        if (!(await runTrial(model, tokenizer, prompts, options))) return;
        if (ours.length === 0) out.text(`Timing with ${line(facts, 0)}.\n`);
        for (let n = 0; n < count; n++) {
          await wait();
          const trial = await runTrial(model, tokenizer, prompts, options);
          if (!trial) return;
          ours.push(trial);
          out.text(`Trial ${ours.length}:  ${line(trial)}\n`);
        }
      } finally {
        model.dispose();
        mx.clearCache();
      }
    };

    if (!reference) await measure(numTrials);
    // In turn, and both sides load the model anew each time: neither holds memory while the other runs.
    while (reference && ours.length < numTrials && !signal.aborted) {
      await measure(1);
      await wait();
      const trial = signal.aborted ? null : await runReferenceTrial(reference, { ...options, model: folder! });
      if (!trial) break;
      theirs.push(trial);
      out.text(`Trial ${theirs.length} (mlx-lm ${reference.version}):  ${line(trial)}\n`);
    }
    if (signal.aborted) {
      process.exitCode = ExitCode.interrupted;
      return;
    }

    const mean = averages(ours);
    out.text(`Averages: ${line(mean)}\n`);
    const result = { model: folder, ...facts, trials: ours, averages: mean };
    if (!reference) return out.result(result);
    const { version } = reference;
    const theirMean = averages(theirs);
    const ratio = ratios(mean, theirMean);
    out.text(`Averages (mlx-lm ${version}): ${line(theirMean)}\n`);
    out.text(`Ratio: ${line(ratio)}\n`);
    out.result({ ...result, against: { version, trials: theirs, averages: theirMean }, ratio });
  },
});

/** `name=value, …`, as mlx-lm prints it. */
function line(figures: object, digits = 3): string {
  return Object.entries(figures)
    .map(([name, value]) => `${name}=${(value as number).toFixed(digits)}`)
    .join(", ");
}

/** How many times theirs ours is. */
function ratios(ours: Speed, theirs: Speed): Speed {
  return {
    prompt_tps: ours.prompt_tps / theirs.prompt_tps,
    generation_tps: ours.generation_tps / theirs.generation_tps,
    peak_memory: ours.peak_memory / theirs.peak_memory,
  };
}
