/**
 * How far bfloat16 takes tiny models from float32, layer by layer: `bun run drift MODEL [DRAWS] [FIXTURE.json]`. Each draw is
 * other weights by formula, computed by kernels of ours and by MLX's own operations; with the choices that each makes of experts
 * or tokens, and with those of float32. A kernel at fault shows with both; a choice that tips over with the first alone.
 */
import { readFileSync } from "node:fs";
import { type Drift, type Drifts, drifts } from "./parity/drift";
import type { FormulaModel } from "./parity/formula-model";

const [name = "kimi_k3", draws = "40", file = `${import.meta.dir}/fixtures/models/${name}.json`] =
  process.argv.slice(2);
const fixture = JSON.parse(readFileSync(file, "utf8")) as FormulaModel & { prompt: number[] };

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
const ratio = ({ ours, mlx }: Drifts) => ours.logits / mlx.logits;

const rows: { salt: number; free: Drifts; held: Drifts }[] = [];
for (let salt = 0; salt < Number(draws); salt++)
  rows.push({ salt, ...(await drifts({ ...fixture, salt }, fixture.prompt)) });

console.log("logits: mean distance from float32's, in bfloat16");
for (const { salt, free, held } of rows) {
  if (ratio(free) < 1.5) continue;
  const numbers = [free.ours.logits, free.mlx.logits].map((value) => value.toFixed(3)).join(" against ");
  const tips = `choices that differ ${free.ours.tipped} against ${free.mlx.tipped}`;
  console.log(
    `  draw ${salt}: ${numbers}, ${ratio(free).toFixed(2)} times; ${tips}; with choices held ${ratio(held).toFixed(2)} times`,
  );
}
for (const kind of ["free", "held"] as const) {
  const of = (one: "ours" | "mlx") => rows.map((row) => row[kind][one]);
  const line = (part: (drift: Drift) => number) =>
    `ours ${mean(of("ours").map(part)).toExponential(3)}, MLX's ${mean(of("mlx").map(part)).toExponential(3)}`;
  console.log(`choices ${kind}, mean of ${rows.length} draws`);
  for (const layer of rows[0]!.free.ours.layers.keys())
    console.log(`  layer ${layer}: ${line(({ layers }) => layers[layer]!)}`);
  console.log(
    `  logits: ${line(({ logits }) => logits)}; worst ratio ${Math.max(...rows.map((row) => ratio(row[kind]))).toFixed(2)}`,
  );
}
