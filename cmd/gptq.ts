/** `mlxlm gptq`: quantization that makes good each rounding in the next. */
import { command } from "../src/cli/command";
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

  async run({ flags, out, signal }) {
    const mx = await import("../src/mlx");
    const { findModel } = await import("../src/cli/model");
    const { printQuality } = await import("../src/cli/quality");
    const { checkTarget } = await import("../src/convert/save");
    const { quantizeByGptq } = await import("../src/quant/gptq-run");
    // Before a download that may take an hour.
    await checkTarget(flags.mlxPath);
    if (flags.device) mx.setDefaultDevice(flags.device);

    const source = await findModel(flags.model, out, signal);
    const bars = {
      data: out.progress("Downloading data", { unit: "bytes" }),
      layers: out.progress("Quantizing", { unit: "it" }),
      save: out.progress("Saving", { unit: "bytes" }),
    };
    const endBars = () => {
      for (const bar of Object.values(bars)) bar.end();
    };
    try {
      const { quantization, calibration, ...facts } = await quantizeByGptq(source, flags.mlxPath, flags, {
        onStage(line) {
          endBars();
          out.info(`[INFO] ${line}`);
        },
        onDownload: (done, total) => bars.data.at(done, total),
        onProgress: (done, total) => bars.layers.at(done, total),
        onSave: (done, total) => bars.save.at(done, total),
        signal,
      });
      endBars();
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
      endBars();
    }
  },
});
