/**
 * Models whose bfloat16 answers turn on close choices: with float32's choices held, kernels of ours are no further from float32
 * than MLX's own operations are, behind each layer. `bun run drift` prints the numbers.
 */
import { expect, test } from "bun:test";
import { type Drifts, drifts } from "./drift";
import { fixture } from "./fixtures";
import type { FormulaModel } from "./formula-model";

const draws = 6;

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

for (const name of ["kimi_k3", "deepseek_v41"]) {
  test(`${name}: bfloat16 by kernels of ours and by MLX's own operations, with choices held`, async () => {
    const model = fixture<FormulaModel & { prompt: number[] }>(`models/${name}.json`);
    const rows: Drifts[] = [];
    for (let salt = 0; salt < draws; salt++) rows.push((await drifts({ ...model, salt }, model.prompt)).held);
    const layers = rows[0]!.ours.layers.keys();
    const parts = [
      ...[...layers].map((layer) => rows.map(({ ours, mlx }) => [ours.layers[layer]!, mlx.layers[layer]!] as const)),
      rows.map(({ ours, mlx }) => [ours.logits, mlx.logits] as const),
    ];
    for (const part of parts) {
      const [ours, mlx] = [mean(part.map(([one]) => one)), mean(part.map(([, one]) => one))];
      expect(mlx).toBeGreaterThan(1e-3);
      expect(mlx).toBeLessThan(0.15);
      expect(ours).toBeLessThan(1.25 * mlx);
    }
  });
}
