/** `mlxlm dynamic_quant`: more bits for the layers that feel it most. */
import { command } from "../src/cli/command";
import { wasGiven } from "../src/cli/parse";
import { ExitCode, UserError } from "../src/errors";
import { isLead } from "../src/mlx/group-environment";
import { dynamicQuantFlags } from "./dynamic_quant.flags";

export default command({
  name: "dynamic_quant",
  summary: "Quantize a model with more bits where it feels them most",
  examples: [
    "mlxlm dynamic_quant --model Qwen/Qwen3-4B --target-bpw 4.8 --mlx-path qwen3-4b-dynamic",
    "mlxlm dynamic_quant --model ./my-model --data-path texts.jsonl --num-samples 64 --grad-checkpoint",
    "mlxlm dynamic_quant --model ./my-model --sensitivities my-model_sensitivities.json --target-bpw 5.2",
  ],
  flags: dynamicQuantFlags,
  computes: true,
  ranks: true,
  hasLongSteps: true,

  async run({ flags, out, signal }) {
    if (flags.lowBits >= flags.highBits) {
      throw new UserError(`--low-bits (${flags.lowBits}) must be fewer than --high-bits (${flags.highBits})`, {
        code: ExitCode.usage,
      });
    }
    const mx = await import("../src/mlx");
    const { findModel } = await import("../src/cli/model");
    const { printQuality } = await import("../src/cli/quality");
    const { checkTarget } = await import("../src/convert/save");
    const { quantizeDynamically } = await import("../src/quant/dynamic-quant-run");
    const { sensitivityFile } = await import("../src/quant/sensitivity-file");
    // Before a download that may take an hour.
    if (isLead()) await checkTarget(flags.mlxPath);

    const source = await findModel(flags.model, out, signal);
    const bars = out.bars({
      data: ["Downloading data", "bytes"],
      batches: ["Estimating sensitivities", "it"],
      save: ["Saving", "bytes"],
    });
    const settings = {
      ...flags,
      nearestTarget: !wasGiven(flags, "targetBpw"),
      sensitivitiesTo: sensitivityFile(flags.model),
    };
    try {
      const { plain, calibration, ...facts } = await quantizeDynamically(source, flags.mlxPath, settings, {
        onStage(line) {
          bars.end();
          out.info(`[INFO] ${line}`);
        },
        onDownload: (done, total) => bars.at("data", done, total),
        onBatch: (done, total) => bars.at("batches", done, total),
        onPerplexity(of, perplexity) {
          bars.end();
          out.text(`${of === "original" ? "Original" : "Quantized"} PPL: ${perplexity.toFixed(3)}\n`);
          out.event({ type: "perplexity", of, perplexity });
        },
        onSave: (done, total) => bars.at("save", done, total),
        signal,
      });
      bars.end();
      // The first rank saves and measures.
      if (!isLead()) return;
      const peak = mx.peakMemory() / 1e9;
      out.info(`[INFO] Quantized model with ${facts.bits_per_weight.toFixed(3)} bits per weight.`);
      out.text(`Peak memory used: ${peak.toFixed(3)}GB\n`);
      const quality = calibration
        ? await printQuality(out, calibration, {
            source: source.path,
            quantized: flags.mlxPath,
            name: "dynamic_quant",
            plain,
            signal,
          })
        : null;
      if (!quality) out.info("[INFO] There is no text to measure the quality on: --data-path names one.");
      out.event({ type: "end", path: flags.mlxPath, ...facts, peak_memory: peak, quality });
    } finally {
      bars.end();
    }
  },
});
