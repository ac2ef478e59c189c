/** Checkpoints as transformers 5 saves them, by its fields and its names: its logits, at once and token by token. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadWeights } from "../../src/convert/load";
import { readConfig } from "../../src/convert/source";
import * as mx from "../../src/mlx";
import { warningsOf } from "../../src/warnings";
import { saveCheckpoint } from "./checkpoint-files";
import { row } from "./decode";
import { expectValues, fixture, float32 } from "./fixtures";

interface Case {
  /** The text of config.json. */
  config: string;
  weights: Record<string, number[]>;
  /** Of each position every `columns`-th. */
  logits: string;
}

const { prompt, salt, columns, cases } = fixture<{
  prompt: number[];
  salt: number;
  columns: number;
  cases: Record<string, Case>;
}>("saved.json");

const temporary = mkdtempSync(join(tmpdir(), "mlxlm-saved-"));
afterAll(() => rmSync(temporary, { recursive: true }));

// The generator keeps one key for good.
mx.random.seed(1);
mx.eval(mx.random.state.get());

for (const [name, { config, weights, logits }] of Object.entries(cases)) {
  test(name, async () => {
    const source = Object.fromEntries(
      Object.entries(weights).map(([path, shape]) => [path, ["weight", "F32", shape] as [string, string, number[]]]),
    );
    const folder = saveCheckpoint(join(temporary, name), {}, source, salt);
    writeFileSync(join(folder, "config.json"), config);
    const before = mx.liveHandles();
    const warnings = await warningsOf(async () => {
      const { model } = await loadWeights(folder, await readConfig(folder));
      const expected = float32(logits);
      const thinned = (x: mx.Tensor) => x.at(mx.ellipsis, mx.slice(undefined, undefined, columns));
      const tolerance = Math.max(1e-4, 2e-5 * expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0));
      mx.scope(() => {
        expectValues(thinned(model.forward(row(prompt))).toArray(), expected, { tolerance });
        const cache = model.makeCache();
        const steps = prompt.map((token) => thinned(model.forward(row([token]), { cache })).toArray() as Float32Array);
        expectValues(Float32Array.from(steps.flatMap((step) => [...step])), expected, { tolerance });
        for (const layer of cache) layer.dispose();
      });
      model.dispose();
    });
    expect(warnings).toEqual([]);
    expect(mx.liveHandles()).toBe(before);
  });
}
