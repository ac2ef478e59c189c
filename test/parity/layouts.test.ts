/** Checkpoints as gpt-oss and DeepSeek V3's family are published: Python's tensors to the bit, its logits and its text. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readConfig } from "../../src/convert/config";
import { loadWeights } from "../../src/convert/load";
import * as mx from "../../src/mlx";
import { hashed, type Source, saveCheckpoint } from "./checkpoint-files";
import { decode, row } from "./decode";
import { expectValues, fixture, float32 } from "./fixtures";

interface Case {
  config: Record<string, unknown>;
  source: Source;
  salt: number;
  quantization: object | null;
  tensors: Record<string, [dtype: string, shape: number[], hash: string]>;
  logits: string;
  greedy: number[];
}

const { prompt, cases } = fixture<{ prompt: number[]; cases: Record<string, Case> }>("layouts.json");

const temporary = mkdtempSync(join(tmpdir(), "mlxlm-layouts-"));
afterAll(() => rmSync(temporary, { recursive: true }));

// The generator keeps one key for good.
mx.random.seed(1);
mx.eval(mx.random.state.get());

for (const [name, expected] of Object.entries(cases)) {
  test(name, async () => {
    const folder = saveCheckpoint(
      join(temporary, name.replaceAll(" ", "-")),
      expected.config,
      expected.source,
      expected.salt,
    );
    const before = mx.liveHandles();
    const { model, config } = await loadWeights(folder, await readConfig(folder));
    expect(config.quantization ?? null).toEqual(expected.quantization);
    mx.scope(() => {
      const tensors = Object.fromEntries(model.namedParameters().map(([path, tensor]) => [path, hashed(tensor)]));
      expect(tensors).toEqual(expected.tensors);
      // In float32, as the oracle's: MLX's CPU kernels sum in the activations' dtype.
      const floating = model.namedParameters().filter(([, tensor]) => /float/.test(tensor.dtype));
      model.update(floating.map(([path, tensor]) => [path, tensor.astype("float32")]));
      expectValues(model.forward(row(prompt)).at(0, -1).toArray(), float32(expected.logits), { tolerance: 1e-4 });
    });
    const cache = model.makeCache();
    const decodable = { forward: model.forward.bind(model), makeCache: () => cache };
    expect(decode(decodable, prompt, expected.greedy.length)).toEqual(expected.greedy);
    for (const layer of cache) layer.dispose();
    model.dispose();
    expect(mx.liveHandles()).toBe(before);
  });
}
