/** `mlxlm gptq`: quantization that makes good each rounding in the next. */
import { command } from "../src/cli/command";
import { isLead } from "../src/mlx/group-environment";
import { gptqFlags } from "./gptq.flags";

export default command({
  name: "gptq",
  summary: "Quantize a model, each rounding made good in the next (GPTQ)",
  examples: [
    "mlxlm gptq --model Qwen/Qwen3-4B --mlx-path qwen3-4b-gptq",
    "mlxlm gptq --model ./my-model --bits 3 --data-path texts.jsonl --num-samples 128",
    "mlxlm gptq --model ./my-model --mlx-path my-model-gptq --resume",
  ],
  flags: gptqFlags,
  computes: true,
  ranks: true,
  hasLongSteps: true,

  async run({ flags, out, signal }) {
    const { findModel } = await import("../src/cli/model");
    const { printQuality } = await import("../src/cli/quality");
    const { checkTarget } = await import("../src/convert/save");
    const { quantizeByGptq } = await import("../src/quant/gptq-run");
    // Before a download that may take an hour.
    await checkTarget(flags.mlxPath);

    const source = await findModel(flags.model, out, signal);
    const bars = out.bars({
      data: ["Downloading data", "bytes"],
      layers: ["Quantizing", "it"],
      save: ["Saving", "bytes"],
    });
    try {
      const { quantization, calibration, ...facts } = await quantizeByGptq(source, flags.mlxPath, flags, {
        onStage(line) {
          bars.end();
          out.info(`[INFO] ${line}`);
        },
        onDownload: (done, total) => bars.at("data", done, total),
        onProgress: (done, total) => bars.at("layers", done, total),
        onSave: (done, total) => bars.at("save", done, total),
        signal,
      });
      bars.end();
      // The first rank saves and measures.
      if (!isLead()) return;
      out.text(`Quantized model with ${facts.bits_per_weight.toFixed(3)} bits per weight.\n`);
      const quality = await printQuality(out, calibration, {
        source: source.path,
        quantized: flags.mlxPath,
        name: "gptq",
        plain: [{ name: "plain affine", quantization }],
        signal,
      });
      out.event({ type: "end", path: flags.mlxPath, ...facts, quality });
    } finally {
      bars.end();
    }
  },
});
