/**
 * LoRA of every layer beside mlx-lm's trainer: weights in bfloat16 and in 4 bits, each with batches as mlx-lm makes them
 * and with samples of mixed lengths, which mlxlm packs and mlx-lm pads. Both sides in turn.
 *
 *   bun bench/lora.ts SHAPE --python PATH [--runs 3] [--iterations 40] [--batch 4] [--length 512] [--layers 32]
 */
import { join } from "node:path";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: "string", default: "python3" },
    runs: { type: "string", default: "3" },
    iterations: { type: "string", default: "40" },
    batch: { type: "string", default: "4" },
    length: { type: "string", default: "512" },
    layers: { type: "string", default: "32" },
  },
});
const [shape] = positionals;
if (!shape) throw new Error("name a shape of bench/shapes.json");

const { python, runs, ...same } = values;
const common = Object.entries(same).flatMap(([name, value]) => [`--${name}`, value]);
for (const weights of [[], ["--bits", "4"]]) {
  for (const batches of [[], ["--samples", "mixed", "--packed"]]) {
    const compare = [process.execPath, join(import.meta.dir, "compare.ts"), "training", shape];
    const command = [...compare, "--python", python, "--runs", runs, "--", ...common, ...weights, ...batches];
    const { exitCode } = Bun.spawnSync(command, { stdout: "inherit", stderr: "inherit" });
    if (exitCode !== 0) process.exit(exitCode);
  }
}
