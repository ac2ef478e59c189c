/** `mlxlm awq`: quantization by what activations show. */
import { command } from "../src/cli/command";
import { isLead } from "../src/mlx/group-environment";
import { awqFlags } from "./awq.flags";

export default command({
  name: "awq",
  summary: "Quantize a model by what activations show (AWQ)",
  examples: [
    "mlxlm awq --model Qwen/Qwen3-4B --mlx-path qwen3-4b-awq",
    "mlxlm awq --model ./my-model --bits 3 --data-path texts.jsonl",
    "mlxlm awq --model ./my-model --mlx-path my-model-awq --resume",
  ],
  flags: awqFlags,
  computes: true,
  ranks: true,
  hasLongSteps: true,

  async run({ flags, out, signal }) {
    const { findModel } = await import("../src/cli/model");
    const { printQuality } = await import("../src/cli/quality");
    const { checkTarget } = await import("../src/convert/save");
    const { quantizeByAwq } = await import("../src/quant/awq-run");
    // Before a download that may take an hour.
    await checkTarget(flags.mlxPath);

    const source = await findModel(flags.model, out, signal);
    const bars = out.bars({
      data: ["Downloading data", "bytes"],
      search: ["Quantizing", "it"],
      save: ["Saving", "bytes"],
    });
    try {
      const result = await quantizeByAwq(source, flags.mlxPath, flags, {
        onStage(line) {
          bars.end();
          out.info(`[INFO] ${line}`);
        },
        onDownload: (done, total) => bars.at("data", done, total),
        onSearch: (done, total) => bars.at("search", done, total),
        onBlock(index, { plain, searched }, resumed) {
          bars.end();
          if (!resumed) out.text(`Loss reduction: ${(searched / plain).toFixed(6)}\n`);
          if (!resumed && searched > plain) {
            out.text("Loss is not reduced, falling back to original weights.\n");
          }
          out.event({ type: "block", index, loss_plain: plain, loss: searched, fell_back: searched > plain, resumed });
        },
        onSave: (done, total) => bars.at("save", done, total),
        signal,
      });
      bars.end();
      // The first rank saves and measures.
      if (!isLead()) return;
      out.text(`Quantized model with ${result.bits_per_weight.toFixed(3)} bits per weight.\n`);

      const { quantization, calibration, ...facts } = result;
      const quality = await printQuality(out, calibration, {
        source: source.path,
        quantized: flags.mlxPath,
        name: "awq",
        plain: [{ name: "plain affine", quantization }],
        signal,
      });
      out.event({ type: "end", path: flags.mlxPath, ...facts, quality });
    } finally {
      bars.end();
    }
  },
});
