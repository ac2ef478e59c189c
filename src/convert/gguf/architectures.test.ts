/**
 * Every architecture that GGUF has: what is written is the file that llama.cpp was shown, which gave these tokens, and what
 * is read of it is the model that was written.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { caseNames, fingerprint, prompt, steps, writeCase } from "../../../test/gguf-models";
import { row } from "../../../test/parity/decode";
import { expectValues, fixture, float32 } from "../../../test/parity/fixtures";
import * as mx from "../../mlx";
import type { LanguageModel } from "../../models";
import { modelTypesWith } from "../../models/registry";
import { openWeights } from "../load";
import { readConfig } from "../source";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-gguf-models-"));
afterAll(() => rmSync(folder, { recursive: true }));

// The generator keeps one key for good.
mx.random.seed(1);
mx.eval(mx.random.state.get());

interface Shown {
  /** `fingerprint` of the file. */
  file: string;
  tokens: number[];
  /** Log-probabilities behind the prompt. */
  last: string;
}

const shown = new Map(fixture<[string, Shown][]>("gguf-models.json"));

/** Tokens, the likeliest each, and the log-probabilities of the first. */
function greedy(model: LanguageModel): { tokens: number[]; first: Float32Array } {
  const cache = model.makeCache();
  const next = (ids: readonly number[]) =>
    mx.scope(() => {
      const logits = model
        .forward(row([...ids]), { cache })
        .at(0, -1)
        .astype("float32");
      return logits.subtract(mx.logsumexp(logits)).toArray() as Float32Array;
    });
  const tokens: number[] = [];
  const first = next(prompt);
  for (let logits = first; ; logits = next(tokens.slice(-1))) {
    tokens.push(logits.indexOf(Math.max(...logits)));
    if (tokens.length === steps) break;
  }
  for (const one of cache) one.dispose();
  return { tokens, first };
}

/** Where llama.cpp computes coarsely: it takes GELU from a table of float16. */
const coarse: Record<string, number> = { gemma3_text: 5e-2 };

test.each([...caseNames])("%s", async (name) => {
  const { file, tokens, last } = shown.get(name)!;
  const live = mx.liveHandles();
  const written = await writeCase(name, folder);
  expect(mx.liveHandles()).toBe(live);
  expect(await fingerprint(written.file), "after a change of the writer, run test/oracle/gguf_models.py").toBe(file);

  const { model, config } = await openWeights(written.file, await readConfig(written.file));
  const { model: original } = await openWeights(written.folder, await readConfig(written.folder));
  const parameters = new Map(original.namedParameters());
  expect(Object.keys(config)).not.toContain("quantization");
  for (const [path, weight] of model.namedParameters()) {
    const before = parameters.get(path) ?? parameters.get(`language_model.${path}`);
    const apart = before && mx.scope(() => weight.subtract(before).abs().max().item() as number);
    expect(apart, path).toBeLessThan(1e-6);
  }
  expect(model.namedParameters().length).toBe(parameters.size);
  original.dispose();

  const ours = greedy(model);
  model.dispose();
  expect(mx.liveHandles()).toBe(live);
  expect(ours.tokens).toEqual(tokens);
  expectValues(ours.first, float32(last), { tolerance: coarse[name] ?? 1e-3 });
});

test("every architecture that can be written is one of them", async () => {
  // Mistral, Xverse and others are Llama by another name.
  const remapped = ["iquestcoder", "joyai_llm_flash", "kimi_k2", "mistral", "xverse"];
  const missing = (await modelTypesWith("gguf")).filter((type) => !caseNames.includes(type));
  expect(missing).toEqual(remapped);
});
