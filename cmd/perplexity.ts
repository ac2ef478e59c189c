/** `mlxlm perplexity`: how well a model predicts the texts of a dataset. */
import { command } from "../src/cli/command";
import { ExitCode, UserError } from "../src/errors";
import { isLaunched } from "../src/mlx/group-environment";
import { perplexityFlags } from "./perplexity.flags";

export default command({
  name: "perplexity",
  summary: "Measure a model's perplexity on a dataset",
  examples: [
    "mlxlm perplexity --model demo --data-path texts.jsonl --sequence-length 128",
    "mlxlm perplexity --model mlx-community/Qwen3-4B-4bit",
  ],
  flags: perplexityFlags,
  computes: true,
  ranks: true,

  async run({ flags, out, signal }) {
    const { sequenceLength, batchSize, numSamples, dataPath, seed } = flags;
    if (flags.model === undefined) {
      throw new UserError("perplexity needs a model", {
        code: ExitCode.usage,
        hint: "--model FOLDER or REPO, or demo",
      });
    }
    if (numSamples === 0) {
      throw new UserError("--num-samples must be at least 1, or -1 for all", { code: ExitCode.usage });
    }
    const mx = await import("../src/mlx");
    const { openModel } = await import("../src/cli/model");
    const { parameterCount } = await import("../src/convert/quantize-model");
    const { openDataset, splitNamed } = await import("../src/data/dataset");
    const { reportPerplexity, sampleTokens } = await import("../src/evaluate/perplexity");
    mx.random.seed(seed);

    out.text(`Loading model from ${flags.model}...\n`);
    const { model, tokenizer } = await openModel(flags.model, out, signal);
    try {
      out.text(
        `Model loaded: ${(parameterCount(model) / 1e6).toFixed(1)}M parameters${isLaunched() ? " on each rank" : ""}\n`,
      );
      out.text(`\nLoading dataset...\n  Sequence length: ${sequenceLength}\n`);
      const bar = out.progress(`Downloading ${dataPath}`, { unit: "bytes" });
      const onProgress = (done: number, total: number) => bar.at(done, total);
      const splits = await openDataset(dataPath, { signal, onProgress }).finally(() => bar.end());
      const rows = splitNamed(splits, "train", dataPath);
      const data = await sampleTokens(rows, tokenizer, { numSamples, sequenceLength, seed, signal });
      out.text(`  Loaded ${data.length} samples\n`);

      out.text(`\nEvaluating perplexity with batch size ${batchSize}...\n`);
      const onBatch = (done: number, total: number) => out.text(`  Processed ${done}/${total} batches...\r`);
      const report = await reportPerplexity(model, data, { batchSize, onBatch, signal });
      if (!report) {
        process.exitCode = ExitCode.interrupted;
        return;
      }
      const frame = "=".repeat(60);
      out.text(`\n\n${frame}\nEVALUATION RESULTS\n${frame}\n`);
      out.text(`Model: ${flags.model}\n`);
      out.text(`Perplexity: ${report.perplexity.toFixed(3)} ± ${report.standard_error.toFixed(3)}\n`);
      out.text(`Evaluation time: ${report.evaluation_time.toFixed(2)} seconds\n`);
      out.text(`Peak memory: ${report.peak_memory.toFixed(2)} GB\n`);
      out.text(`Tokens per second: ${report.tokens_per_second.toFixed(0)}\n`);
      out.text(`\nDataset statistics:\n  Total samples: ${report.total_samples}\n`);
      out.text(`  Total tokens: ${report.total_tokens}\n`);
      out.result({ model: flags.model, ...report });
    } finally {
      model.dispose();
    }
  },
});
