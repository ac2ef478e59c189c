/** `mlxlm dwq`: a quantized model learns from its original. */
import { command } from "../src/cli/command";
import { ExitCode, UserError } from "../src/errors";
import { isLead } from "../src/mlx/group-environment";
import { dwqFlags } from "./dwq.flags";

export default command({
  name: "dwq",
  summary: "Quantize a model and have it learn from the original (DWQ)",
  examples: [
    "mlxlm dwq --model Qwen/Qwen3-4B --mlx-path qwen3-4b-dwq --target-dir targets",
    "mlxlm dwq --model ./my-model --quantized-model ./my-model-4bit --data-path chats.jsonl",
    "mlxlm dwq --model ./my-model --target-dir targets --targets-only",
  ],
  flags: dwqFlags,
  computes: true,
  ranks: true,
  hasLongSteps: true,

  async run({ flags, out, signal }) {
    if (flags.model === undefined) {
      throw new UserError("dwq needs a model", { code: ExitCode.usage, hint: "Name one: --model FOLDER or REPO" });
    }
    const { findModel } = await import("../src/cli/model");
    const { printQuality } = await import("../src/cli/quality");
    const { checkTarget } = await import("../src/convert/save");
    const { quantizeByDwq } = await import("../src/quant/dwq-run");
    const { trainingLine, validationLine, worseLine } = await import("../src/quant/dwq-lines");
    // Before a download that may take an hour.
    if (!flags.targetsOnly) await checkTarget(flags.mlxPath);

    const source = await findModel(flags.model, out, signal);
    const quantized = flags.quantizedModel && (await findModel(flags.quantizedModel, out, signal)).path;
    const bars = out.bars({
      data: ["Downloading data", "bytes"],
      targets: ["Computing targets", "it"],
      steps: ["Training", "it"],
      losses: ["Computing validation loss", "it"],
      save: ["Saving", "bytes"],
    });
    try {
      const result = await quantizeByDwq({ ...source, quantized }, flags.mlxPath, flags, {
        onStage(line) {
          bars.end();
          out.info(`[INFO] ${line}`);
        },
        onDownload: (done, total) => bars.at("data", done, total),
        onTarget: (done, total) => bars.at("targets", done, total),
        onModel: (line) => out.text(`${line}\n`),
        onEvent(event) {
          bars.end();
          out.text(`${event.type === "val" ? validationLine(event) : trainingLine(event)}\n`);
          out.event(event);
        },
        onStep: (done, total) => bars.at("steps", done, total),
        onValidationBatch: (done, total) => bars.at("losses", done, total),
        onSave: (done, total) => bars.at("save", done, total),
        signal,
      });
      bars.end();
      // The first rank saves and measures.
      if (!isLead()) return;
      if (!result) {
        out.event({ type: "end", targets: flags.targetDir! });
        return;
      }
      const { progress, quantization, calibration, ...facts } = result;
      const warning = worseLine(progress);
      if (warning !== null) out.text(`${warning}\n`);
      const quality = await printQuality(out, calibration, {
        source: source.path,
        quantized: flags.mlxPath,
        name: "dwq",
        plain: [{ name: "plain affine", quantization }],
        signal,
      });
      const losses = { initial_loss: progress.initial, final_loss: progress.latest };
      out.event({ type: "end", path: flags.mlxPath, ...facts, ...losses, quality });
    } finally {
      bars.end();
    }
  },
});
