/** GLM 5.2's layers that take the choice of tokens of an earlier one. Its logits are compared with llama.cpp's where GGUF files are. */
import { expect, test } from "bun:test";
import { row } from "../../test/parity/decode";
import { fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { parseArgs } from "./parse-args";
import { architecture } from "./registry";

// The generator keeps one key for good.
mx.random.seed(1);
mx.eval(mx.random.state.get());

const { config, salt, weights } = fixture<FormulaModel>("models/glm_moe_dsa.json");
const { Args } = await architecture("glm_moe_dsa");
const layers = config.num_hidden_layers as number;

const typesOf = (settings: object) =>
  (parseArgs(Args, { ...config, ...settings }, "here") as { indexer_types: string[] }).indexer_types;

test("which layers choose: as a list, a word, or a period", () => {
  const said = ["full", "shared", "full"].slice(0, layers);
  expect(typesOf({})).toEqual(Array.from({ length: layers }, () => "full"));
  expect(typesOf({ indexer_types: said })).toEqual(said);
  expect(typesOf({ index_topk_pattern: "FSF".slice(0, layers) })).toEqual(said);
  const ten = { num_hidden_layers: 10, index_topk_freq: 4, index_skip_topk_offset: 3 };
  expect(
    typesOf(ten)
      .map((type) => type[0])
      .join(""),
  ).toBe("fffsssfsss");
  expect(() => typesOf({ indexer_types: ["shared", ...said.slice(1)] })).toThrow("there is none ahead");
  expect(() => typesOf({ indexer_types: ["full"] })).toThrow('has 1 entries, but "num_hidden_layers"');
  expect(() => typesOf({ index_topk_pattern: "FX" })).toThrow("index_topk_pattern");
});

/** Every other layer shares: its indexer's tensors in the checkpoint are left out. */
const shares = { ...config, indexer_types: Array.from({ length: layers }, (_, i) => (i % 2 ? "shared" : "full")) };
const prompt = Array.from({ length: 24 }, (_, i) => (i * 37 + 5) % 256);

test("steps, chunks and rows of a batch give what the whole text gives, and other logits than layers of their own choice", async () => {
  const live = mx.liveHandles();
  const model = await formulaModel({ config: shares, salt, weights });
  expect(model.namedParameters().some(([name]) => name.includes("layers.1.self_attn.indexer"))).toBe(false);
  const whole = mx.scope(() => model.forward(row(prompt)).at(0));

  const cache = model.makeCache();
  const [chunk, ...steps] = [prompt.slice(0, 15), ...prompt.slice(15).map((id) => [id])];
  const close = (ours: Tensor, at: number) => {
    const apart = ours
      .subtract(whole.at(mx.slice(at, at + ours.dim(0))))
      .abs()
      .max()
      .item() as number;
    expect(apart).toBeLessThan(1e-4);
  };
  mx.scope(() => close(model.forward(row(chunk!), { cache }).at(0), 0));
  for (const [i, step] of steps.entries()) mx.scope(() => close(model.forward(row(step), { cache }).at(0), 15 + i));
  mx.scope(() => close(model.forward(mx.array([prompt, prompt], "uint32"), {}).at(1), 0));
  for (const layer of cache) layer.dispose();

  const own = await formulaModel({ config, salt, weights });
  const apart = mx.scope(() => own.forward(row(prompt)).at(0).subtract(whole).abs().max().item() as number);
  expect(apart).toBeGreaterThan(1e-2);
  for (const one of [model, own]) one.dispose();
  whole.dispose();
  expect(mx.liveHandles()).toBe(live);
});
