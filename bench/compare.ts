/**
 * Decode speed beside mlx-lm: both sides in turn, the same libmlx, shape and clock, medians over several runs.
 *
 *   bun bench/compare.ts SHAPE --python PATH [--runs 5] [--dtype bfloat16] [--bits 4] [--prompt 128] [--tokens 256]
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { median } from "./median";

interface Figures {
  prompt_tps: number;
  generation_tps: number;
  peak_memory: number;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: "string", default: "python3" },
    runs: { type: "string", default: "5" },
    dtype: { type: "string", default: "bfloat16" },
    bits: { type: "string" },
    prompt: { type: "string", default: "128" },
    tokens: { type: "string", default: "256" },
  },
});
const [shape] = positionals;
if (!shape) throw new Error("name a shape of bench/shapes.json");

const flags = ["--dtype", values.dtype, "--prompt", values.prompt, "--tokens", values.tokens];
if (values.bits) flags.push("--bits", values.bits);

function measure(command: string[]): Figures {
  const { stdout, stderr, exitCode } = Bun.spawnSync([...command, shape!, ...flags], {
    stdout: "pipe",
    stderr: "pipe",
  });
  if (exitCode !== 0) throw new Error(`${command.join(" ")} failed:\n${stderr}`);
  return JSON.parse(stdout.toString().trim().split("\n").at(-1)!);
}

const ours: Figures[] = [];
const theirs: Figures[] = [];
for (let run = 0; run < Number(values.runs); run++) {
  ours.push(measure([process.execPath, join(import.meta.dir, "decode.ts")]));
  theirs.push(measure([values.python, join(import.meta.dir, "decode.py")]));
}

console.log(
  `${shape} ${values.bits ? `${values.bits}-bit` : values.dtype}, prompt ${values.prompt}, ${values.runs} runs`,
);
for (const key of ["generation_tps", "prompt_tps", "peak_memory"] as const) {
  const [a, b] = [median(ours.map((run) => run[key])), median(theirs.map((run) => run[key]))];
  const spread = (runs: Figures[]) => runs.map((run) => run[key].toFixed(key === "peak_memory" ? 2 : 0)).join(" ");
  console.log(
    `${key.padEnd(15)} mlxlm ${a.toFixed(2)} (${spread(ours)})  mlx-lm ${b.toFixed(2)} (${spread(theirs)})  ratio ${(a / b).toFixed(2)}`,
  );
}
