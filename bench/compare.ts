/**
 * A bench beside mlx-lm's: both sides in turn, the same libmlx, shape and clock, medians over several runs.
 *
 *   bun bench/compare.ts decode|training|quantize SHAPE|METHOD --python PATH [--runs 5] [-- FLAGS OF THE BENCH]
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { median } from "./median";

type Figures = Record<string, number>;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { python: { type: "string", default: "python3" }, runs: { type: "string", default: "5" } },
});
const [bench, ...rest] = positionals;
const benches = ["decode", "training", "quantize"];
if (!bench || !benches.includes(bench)) throw new Error(`name a bench: ${benches.join(", ")}`);
if (!rest[0]) throw new Error("name a shape of bench/shapes.json, or a method of quantization");

function measure(program: string, script: string): Figures {
  const command = [program, join(import.meta.dir, script), ...rest];
  const { stdout, stderr, exitCode } = Bun.spawnSync(command, { stdout: "pipe", stderr: "pipe" });
  if (exitCode !== 0) throw new Error(`${command.join(" ")} failed:\n${stderr}`);
  return JSON.parse(stdout.toString().trim().split("\n").at(-1)!);
}

const ours: Figures[] = [];
const theirs: Figures[] = [];
for (let run = 0; run < Number(values.runs); run++) {
  ours.push(measure(process.execPath, `${bench}.ts`));
  theirs.push(measure(values.python, `${bench}.py`));
}

console.log(`${bench} ${rest.join(" ")}, ${values.runs} runs`);
for (const key of Object.keys(ours[0]!)) {
  const of = (runs: Figures[]) => runs.map((run) => run[key]!);
  const [a, b] = [median(of(ours)), median(of(theirs))];
  const spread = (runs: Figures[]) =>
    of(runs)
      .map((figure) => figure.toPrecision(4))
      .join(" ");
  console.log(
    `${key.padEnd(17)} mlxlm ${a.toFixed(2)} (${spread(ours)})  mlx-lm ${b.toFixed(2)} (${spread(theirs)})  ratio ${(a / b).toFixed(3)}`,
  );
}
