/**
 * A learned quantizer's time and memory on a model of one's own, with the command's flags; the text is mlx-lm's calibration
 * file, where its cache folder has it. Prints one JSON line: of the work that mlx-lm does too, and with the closing
 * report. `compare.ts` runs it in turn with mlx-lm's side, quantize.py.
 *
 *   bun bench/quantize.ts awq|dwq|gptq|dynamic_quant --model FOLDER [FLAGS OF THE COMMAND]
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { awqFlags } from "../cmd/awq.flags";
import { dwqFlags } from "../cmd/dwq.flags";
import { dynamicQuantFlags } from "../cmd/dynamic_quant.flags";
import { gptqFlags } from "../cmd/gptq.flags";
import { Output } from "../src/cli/output";
import { parseFlags } from "../src/cli/parse";
import { printQuality } from "../src/cli/quality";
import * as mx from "../src/mlx";
import type { QuantizationConfig } from "../src/nn";
import { quantizeByAwq } from "../src/quant/awq-run";
import type { Calibration } from "../src/quant/calibration";
import { quantizeByDwq } from "../src/quant/dwq-run";
import { quantizeDynamically } from "../src/quant/dynamic-quant-run";
import { quantizeByGptq } from "../src/quant/gptq-run";

interface Outcome {
  calibration: Calibration | null;
  quantization?: QuantizationConfig;
  plain?: { name: string; quantization: QuantizationConfig }[];
}

const [method, ...rest] = process.argv.slice(2);
const scratch = mkdtempSync(join(tmpdir(), "mlxlm-bench-"));
const words = rest.includes("--mlx-path") ? rest : [...rest, "--mlx-path", join(scratch, "model")];

const methods: Record<string, () => Promise<[Outcome, source: string, target: string]>> = {
  async awq() {
    const flags = parseFlags(words, awqFlags, "awq");
    return [await quantizeByAwq({ path: flags.model }, flags.mlxPath, flags), flags.model, flags.mlxPath];
  },
  async dwq() {
    const flags = parseFlags(words, dwqFlags, "dwq");
    const source = { path: flags.model!, quantized: flags.quantizedModel };
    return [(await quantizeByDwq(source, flags.mlxPath, flags))!, source.path, flags.mlxPath];
  },
  async gptq() {
    const flags = parseFlags(words, gptqFlags, "gptq");
    return [await quantizeByGptq({ path: flags.model }, flags.mlxPath, flags), flags.model, flags.mlxPath];
  },
  async dynamic_quant() {
    const flags = parseFlags(words, dynamicQuantFlags, "dynamic_quant");
    const settings = { ...flags, sensitivitiesTo: `${flags.mlxPath}.sensitivities.json` };
    return [await quantizeDynamically({ path: flags.model }, flags.mlxPath, settings), flags.model, flags.mlxPath];
  },
};
const run = methods[method ?? ""];
if (!run) throw new Error(`name a method: ${Object.keys(methods).join(", ")}`);

try {
  const began = performance.now();
  const figures = () => [
    (performance.now() - began) / 1000,
    mx.peakMemory() / 1e9,
    process.resourceUsage().maxRSS / 1e6,
  ];
  const [outcome, source, quantized] = await run();
  const [seconds, peak_memory, peak_rss] = figures();
  if (outcome.calibration) {
    const plain = outcome.plain ?? [{ name: "plain affine", quantization: outcome.quantization! }];
    await printQuality(new Output(false), outcome.calibration, { source, quantized, name: method!, plain });
  }
  const [seconds_with_report, peak_memory_with_report, peak_rss_with_report] = figures();
  const reported = { seconds_with_report, peak_memory_with_report, peak_rss_with_report };
  console.log(JSON.stringify({ seconds, peak_memory, peak_rss, ...reported }));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
