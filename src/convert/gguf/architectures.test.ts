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
import { UserError } from "../../errors";
import * as mx from "../../mlx";
import type { LanguageModel } from "../../models";
import { modelTypesWith } from "../../models/registry";
import { openWeights } from "../load";
import { readConfig } from "../source";
import { architectureOf } from "./architecture";
import { readGgufHeader } from "./header";
import { smallTensors } from "./stretches";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-gguf-models-"));
afterAll(() => rmSync(folder, { recursive: true }));

// The generator keeps one key for good.
mx.random.seed(1);
mx.eval(mx.random.state.get());

interface Shown {
  /** `fingerprint` of the file. */
  file: string;
  /** What followed the prompt, and what was likeliest at each step: the end of a text was not taken. */
  tokens: number[];
  likeliest: number[];
  /** Log-probabilities behind the prompt. */
  last: string;
}

const shown = new Map(fixture<[string, Shown][]>("gguf-models.json"));

/** The likeliest token at each step of such a text, and the log-probabilities at the first. */
function greedy(model: LanguageModel, text: readonly number[]): { likeliest: number[]; first: Float32Array } {
  const cache = model.makeCache();
  const next = (ids: readonly number[]) =>
    mx.scope(() => {
      const logits = model
        .forward(row([...ids]), { cache })
        .at(0, -1)
        .astype("float32");
      return logits.subtract(mx.logsumexp(logits)).toArray() as Float32Array;
    });
  const first = next(prompt);
  const all = [first, ...text.slice(0, steps - 1).map((token) => next([token]))];
  for (const one of cache) one.dispose();
  return { likeliest: all.map((logits) => logits.indexOf(Math.max(...logits))), first };
}

/**
 * Where llama.cpp computes coarsely: it takes GELU from a table of float16, and of StarCoder 2 and Spark that of tanh; of
 * MiniMax M3 it takes keys and values in float16.
 */
const coarse = /^(gemma|starcoder2|gpt2|gpt_bigcode|gpt_neox|phi$|spark2_5|minimax_m3_vl)/;

/** There its deviation of gates is also that of a sample, by n − 1: transformers' is by n. */
const coarser = /^gemma3n$/;

/** Read as another model that computes the same, whose weights have other names or lie in another order. */
const asOther = /^(helium|hf_olmo)$/;

/** Metadata that are missing, of another type or as large as can be are refused, or not needed: nothing else happens. */
async function expectSound(file: string): Promise<void> {
  const header = await readGgufHeader(file);
  const name = String(header.metadata.get("general.architecture"));
  for (const key of [...header.metadata.keys()].filter((key) => key.startsWith(`${name}.`))) {
    for (const value of [undefined, "text", 2 ** 32 - 1]) {
      const metadata = new Map(header.metadata);
      if (value === undefined) metadata.delete(key);
      else metadata.set(key, value);
      const changed = { ...header, metadata };
      const error = await architectureOf(changed, smallTensors(changed), "changed.gguf").then(
        () => null,
        (thrown: unknown) => thrown,
      );
      if (error !== null) expect(error, `${key}: ${value}`).toBeInstanceOf(UserError);
    }
  }
}

test.each([...caseNames])("%s", async (name) => {
  const { file, tokens, likeliest, last } = shown.get(name)!;
  const live = mx.liveHandles();
  const written = await writeCase(name, folder);
  expect(mx.liveHandles()).toBe(live);
  expect(await fingerprint(written.file), "after a change of the writer, run test/oracle/gguf_models.py").toBe(file);

  await expectSound(written.file);

  const { model, config } = await openWeights(written.file, await readConfig(written.file));
  const { model: original } = await openWeights(written.folder, await readConfig(written.folder));
  const parameters = new Map(original.namedParameters());
  expect(Object.keys(config)).not.toContain("quantization");
  for (const [path, weight] of asOther.test(name) ? [] : model.namedParameters()) {
    const before = parameters.get(path) ?? parameters.get(`language_model.${path}`);
    const apart = before && mx.scope(() => weight.subtract(before).abs().max().item() as number);
    expect(apart, path).toBeLessThan(1e-6);
  }
  if (!asOther.test(name)) expect(model.namedParameters().length).toBe(parameters.size);
  original.dispose();

  const ours = greedy(model, tokens);
  model.dispose();
  expect(mx.liveHandles()).toBe(live);
  expect(ours.likeliest).toEqual(likeliest);
  expectValues(ours.first, float32(last), { tolerance: coarser.test(name) ? 0.2 : coarse.test(name) ? 5e-2 : 1e-3 });
});

test("every architecture that can be written is one of them", async () => {
  // Mistral, Xverse and others are Llama by another name.
  const remapped = [
    "gemma4_unified",
    "hunyuan_v1_moe",
    "iquestcoder",
    "joyai_llm_flash",
    "kimi_k2",
    "lfm2_vl",
    "minimax_m2",
    "mistral",
    "qwen2_5_vl",
    "xverse",
  ];
  const missing = (await modelTypesWith("gguf")).filter((type) => !caseNames.includes(type));
  expect(missing).toEqual(remapped);
});
