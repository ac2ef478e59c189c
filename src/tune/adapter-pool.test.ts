/** Rows of a batch that have different adapters get what each gets alone from a model with its adapter. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomAdapter } from "../../test/adapter";
import { decode } from "../../test/parity/decode";
import { fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import { BatchGenerator, type BatchRequest } from "../generate/batch";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { fuseProjections, holdTransposes, quantize } from "../nn";
import { applyAdapters } from "./adapter-files";
import { AdapterPool } from "./adapter-pool";
import { canShareAdapters } from "./whole-layers";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-adapters-"));
afterAll(() => rmSync(folder, { recursive: true }));

type Fixture = FormulaModel & { prompt: number[] };

interface Kind {
  name: string;
  quantized?: boolean;
  /** Layers that the second adapter changes, beside those of blocks that the first one does. */
  keys?: string[];
}

async function loaded({ name, quantized }: Kind): Promise<LanguageModel> {
  const model = await formulaModel(fixture<Fixture>(`models/${name}.json`));
  if (quantized) mx.scope(() => quantize(model, { groupSize: 32, bits: 4 }));
  fuseProjections(model);
  holdTransposes(model);
  mx.eval(model.parameters());
  return model;
}

function run(generator: BatchGenerator, requests: readonly BatchRequest[]): number[][] {
  const answers = new Map(requests.map((request): [number, number[]] => [generator.add(request), []]));
  while (generator.size > 0) {
    for (const event of generator.step()) {
      if (event.type === "failure") throw event.error;
      if (event.type === "token") answers.get(event.id)!.push(event.token);
    }
  }
  return [...answers.values()];
}

const count = 12;

const kinds: Kind[] = [
  { name: "llama", keys: ["self_attn.q_proj", "lm_head"] },
  { name: "llama", quantized: true },
  { name: "gemma3_text", keys: ["self_attn.v_proj", "model.embed_tokens"] },
  { name: "qwen3_moe" },
  { name: "qwen3_moe", quantized: true },
  { name: "qwen3_5" },
];

describe.each(kinds)("%o", (kind) => {
  test("two adapters, one of them twice, and none", async () => {
    const { prompt, salt } = fixture<Fixture>(`models/${kind.name}.json`);
    const [first, second] = [join(folder, Bun.randomUUIDv7()), join(folder, Bun.randomUUIDv7())];
    await randomAdapter(first, await loaded(kind), { rank: 4, seed: salt, spread: 0.1 });
    await randomAdapter(second, await loaded(kind), {
      rank: 6,
      seed: salt + 1,
      keys: kind.keys,
      scale: 3,
      spread: 0.1,
    });
    // Long prompts, so that experts are sorted.
    const prompts = [prompt, prompt.slice(2), [...prompt, ...prompt, ...prompt], prompt.slice(1), prompt];
    const folders = [first, null, second, first, second];
    const expected: number[][] = [];
    for (const [i, one] of prompts.entries()) {
      const model = await loaded(kind);
      if (folders[i]) await applyAdapters(model, folders[i]);
      expected.push(decode(model, one, count));
      model.dispose();
    }
    expect(new Set(expected.map(String)).size).toBeGreaterThan(3);

    const before = mx.liveHandles();
    const model = await loaded(kind);
    const pool = new AdapterPool(model);
    const generator = new BatchGenerator(model, { adapters: pool });
    const pooled = new Map([
      [first, await pool.load(first)],
      [second, await pool.load(second)],
    ]);
    const requests = prompts.map((one, i) => ({
      prompt: one,
      maxTokens: count,
      adapter: folders[i] ? pooled.get(folders[i])! : null,
    }));
    expect(run(generator, requests)).toEqual(expected);
    // Each alone, in a batch with all its kind, and after another one has gone.
    expect(run(generator, requests.slice(0, 1))).toEqual(expected.slice(0, 1));
    expect(run(generator, requests.slice(1, 2))).toEqual(expected.slice(1, 2));
    pool.unload(pooled.get(first)!);
    expect(run(generator, [requests[2]!, requests[1]!])).toEqual([expected[2]!, expected[1]!]);
    generator.dispose();
    pool.dispose();
    expect(pool.nbytes).toBe(0);
    model.dispose();
    expect(mx.liveHandles()).toBe(before);
  });
});

describe("what cannot be shared", () => {
  const base: Kind = { name: "llama" };

  test("DoRA, and models that read rows apart", async () => {
    const model = await loaded(base);
    const pool = new AdapterPool(model);
    const at = join(folder, Bun.randomUUIDv7());
    await randomAdapter(at, await loaded(base), { rank: 2, seed: 1, dora: true });
    expect(await pool.load(at)).toBe(null);
    expect(canShareAdapters(model)).toBe(true);
    model.dispose();
    const apart = await loaded({ name: "deepseek_v41" });
    expect(canShareAdapters(apart)).toBe(false);
    apart.dispose();
  });

  test("an adapter of another model is refused in words, and changes nothing", async () => {
    const model = await loaded(base);
    const pool = new AdapterPool(model);
    const before = mx.liveHandles();
    const names = model.namedParameters().map(([name]) => name);
    const at = join(folder, Bun.randomUUIDv7());
    await randomAdapter(at, await loaded({ name: "qwen3" }), { rank: 2, seed: 1 });
    await expect(pool.load(at)).rejects.toThrow("incompatible tensors");
    await expect(pool.load(join(folder, "nowhere"))).rejects.toThrow("there is no adapter folder");
    expect(model.namedParameters().map(([name]) => name)).toEqual(names);
    expect(mx.liveHandles()).toBe(before);
    model.dispose();
  });
});
