/** gpt-oss in GGUF files: its names, and what of its settings has a place there. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { row } from "../../../test/parity/decode";
import { fixture } from "../../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../../test/parity/formula-model";
import { UserError } from "../../errors";
import * as mx from "../../mlx";
import { architecture, type LanguageModel } from "../../models";
import { dequantize } from "../../nn";
import { openWeights } from "../load";
import { saveModel } from "../save";
import { readConfig } from "../source";
import { exportGguf } from "./export";
import { readGgufHeader } from "./header";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-gguf-gpt-oss-"));
afterAll(() => rmSync(folder, { recursive: true }));

const checkpoint = join(import.meta.dir, "../../../test/fixtures/checkpoint");
const original = fixture<FormulaModel>("models/gpt_oss.json");
const yarn = { rope_type: "yarn", factor: 32, beta_fast: 32, beta_slow: 1, original_max_position_embeddings: 64 };

// As many tokens as the checkpoint's tokenizer has.
const embedding = [384, 64];
const model: FormulaModel = {
  ...original,
  config: { ...original.config, vocab_size: 384, max_position_embeddings: 2048 },
  weights: { ...original.weights, "model.embed_tokens.weight": embedding, "lm_head.weight": embedding },
};

async function saved(name: string, settings: object = {}): Promise<string> {
  const path = join(folder, name);
  await saveModel(path, await formulaModel(model, "float16"), { ...model.config, ...settings }, { source: checkpoint });
  return path;
}

/** More than the window, and than the context before positions were stretched. */
const prompt = Array.from({ length: 80 }, (_, i) => (i * 37) % 384);

function logitsOf(model: LanguageModel): Float32Array {
  const logits = mx.scope(() => {
    // First: 8-bit codes lose digits where they are unpacked in float16.
    model.update(model.namedParameters().map(([name, x]) => [name, toFloat32(x)]));
    dequantize(model);
    return model.forward(row(prompt)).at(0, -1).toArray() as Float32Array;
  });
  model.dispose();
  return logits;
}

const toFloat32 = (x: mx.Tensor) => (mx.isFloating(x.dtype) ? x.astype("float32") : x);

const length = (x: Float32Array) => Math.hypot(...x);

test.each(["F16", "Q8_0"] as const)("%s: settings and logits come back", async (type) => {
  const source = await saved(`for ${type}`);
  const path = join(folder, `${type}.gguf`);
  const live = mx.liveHandles();
  await exportGguf(source, path, { type });
  expect(mx.liveHandles()).toBe(live);

  const { metadata, tensors } = await readGgufHeader(path);
  expect(metadata.get("gpt-oss.attention.sliding_window")).toBe(6);
  expect(metadata.get("gpt-oss.expert_feed_forward_length")).toBe(32);
  const types = (part: string) => tensors.get(`blk.1.${part}`)?.type.name;
  expect(["attn_sinks.weight", "ffn_gate_inp.weight", "ffn_up_exps.bias"].map(types)).toEqual(["F32", "F32", "F32"]);
  expect(["attn_q.weight", "ffn_down_exps.weight"].map(types)).toEqual([type, type]);

  const config = await readConfig(path);
  expect(config).toMatchObject({
    model_type: "gpt_oss",
    sliding_window: 6,
    intermediate_size: 32,
    rope_theta: 150_000,
  });
  expect(config.rope_scaling).toEqual({ type: "yarn", factor: 32, original_max_position_embeddings: 64 });
  const after = logitsOf((await openWeights(path, config)).model);
  const before = logitsOf((await openWeights(source, await readConfig(source))).model);
  const [error, whole] = [length(after.map((x, i) => x - before[i]!)), length(before)];
  expect(error / whole).toBeLessThan(type === "F16" ? 1e-5 : 0.1);
});

test("what llama.cpp computes in another way is refused", async () => {
  const { gguf } = await architecture("gpt_oss");
  const settings = { ...model.config, layer_types: null, rope_scaling: yarn };
  const write = (change: object) => gguf!.write({ ...settings, ...change }, "a test");
  expect(write({}).fields["rope.scaling.type"]).toEqual(["string", "yarn"]);

  const refused: [change: object, message: RegExp][] = [
    [{ rope_scaling: { ...yarn, truncate: false } }, /"truncate" of yarn has no place/],
    [{ layer_types: ["full_attention", "sliding_attention", "full_attention", "full_attention"] }, /do not alternate/],
    [
      {
        rope_scaling: null,
        rope_theta: null,
        rope_parameters: { full_attention: yarn, sliding_attention: { rope_type: "default", rope_theta: 1e4 } },
      },
      /a rotation of sliding layers/,
    ],
  ];
  for (const [change, message] of refused) {
    expect(() => write(change)).toThrow(UserError);
    expect(() => write(change)).toThrow(message);
  }
  const source = await saved("exact", { rope_scaling: { ...yarn, truncate: false } });
  await expect(exportGguf(source, join(folder, "exact.gguf"))).rejects.toThrow(UserError);
  expect(readdirSync(folder)).not.toContain("exact.gguf");
});

test("sinks are a parameter of the attention; names that only look alike have no place", async () => {
  const { names } = (await architecture("gpt_oss")).gguf!;
  expect(names.path("blk.3.attn_sinks.weight")).toEqual(["model.layers.3.self_attn", "sinks"]);
  expect(names.ofParameter("model.layers.3.self_attn.sinks")).toBe("blk.3.attn_sinks.weight");
  for (const name of [
    "attn_sinks.weight",
    "blk.3.attn_sinks.bias",
    "blk.3.attn_sinks.0.weight",
    "blk.3.sinks.weight",
  ]) {
    expect(names.path(name), name).toBeNull();
  }
  for (const name of ["self_attn.sinks", "model.layers.3.self_attn.sinks.weight", "model.layers.3.self_attn.q_proj"]) {
    expect(names.ofParameter(name), name).toBeNull();
  }
});
