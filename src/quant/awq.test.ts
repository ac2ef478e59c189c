/** AWQ against mlx-lm's, model by model. */
import { describe, expect, test } from "bun:test";
import { fixture, float32 } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import { formula } from "../../test/parity/tensors";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { CausalLM } from "../models/language-model";
import { Linear, type Module, packing, quantize, RMSNorm, SwitchLinear } from "../nn";
import { type AwqOptions, awqFacts, awqQuantize } from "./awq";
import { searchClip, searchScales } from "./awq-search";
import { blockInputs, blockOutput } from "./layer-inputs";

interface Case {
  name: string;
  tokens: number[][];
  /** Errors of each block with what was found, by those without. */
  reductions: number[];
  /** Factors in the order in which they were found. */
  scales: number[][];
  /** Mean squares of all that is not packed. */
  mean_squares: Record<string, number>;
  /** What is not packed of one block. */
  block: Record<string, string>;
}

interface Search {
  bits: number;
  group_size: number;
  experts: number | null;
  scales: number[];
  /** What each group's range is cut to, by the range. */
  limits: number[];
}

interface Fixture {
  options: Record<string, number>;
  searches: Search[];
  models: Case[];
}

const { options, searches, models } = fixture<Fixture>("quant-awq.json");

const how = packing({ bits: options.bits, groupSize: options.group_size });
const embedding = packing({ bits: options.embed_bits, groupSize: options.embed_group_size });

async function original(name: string): Promise<{ model: LanguageModel; settings: AwqOptions }> {
  const facts = fixture<FormulaModel>(`models/${name}.json`);
  const model = await formulaModel(facts);
  mx.scope(() => {
    for (const block of model.layers) {
      for (const norm of ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm"]) {
        const module = (block as unknown as Record<string, Module>)[norm];
        if (!(module instanceof RMSNorm)) continue;
        const outliers = mx.arange(module.weight.size).remainder(13).equal(5);
        module.update([["weight", module.weight.multiply(mx.where(outliers, 6, 1))]]);
      }
    }
  });
  mx.eval(model.parameters());
  return { model, settings: { plan: await awqFacts(facts.config.model_type), how, embedding, grid: options.n_grid! } };
}

const tokensOf = (rows: number[][]) => mx.array(rows.flat(), "uint32", [rows.length, rows[0]!.length]);

/** Fails with the first that is not within the share of what is expected. */
function expectWithin(share: number, got: ArrayLike<number>, wanted: ArrayLike<number>, what = "element") {
  expect(got.length).toBe(wanted.length);
  for (let i = 0; i < wanted.length; i++) {
    const close = Math.abs(got[i]! - wanted[i]!) <= share * Math.abs(wanted[i]!);
    if (!close) expect({ [what]: i, value: got[i] }).toEqual({ [what]: i, value: wanted[i] });
  }
}

describe("the searches find what mlx-lm's find", () => {
  test.each(searches)("$bits bits, groups of $group_size", async (one) => {
    const { bits, group_size: groupSize, experts } = one;
    const packed = packing({ bits, groupSize });
    const layer = experts ? new SwitchLinear(128, 24, experts, { bias: false }) : new Linear(128, 24, { bias: false });
    const captured = mx.keep(
      mx.scope(() => {
        layer.update([["weight", formula("awq weight", layer.weight.shape)]]);
        const louder = mx.where(mx.arange(128).remainder(13).equal(5), 6, 1);
        const shape = experts ? [640, 1, 128] : [20, 32, 128];
        const indices = experts ? mx.arange(640).remainder(experts).astype("uint32") : null;
        return { x: formula("awq input", shape).multiply(louder), indices };
      }),
    );
    const run = (x: mx.Tensor, indices: mx.Tensor | null) => layer.forward(x, indices!);
    const scales = await searchScales({ layers: [layer], captured, run, how: packed, grid: 10 });
    expectWithin(1e-5, scales.toArray() as Float32Array, one.scales);
    const clipped = await searchClip(layer, captured, { how: packed, grid: 10 });
    const limits = mx.scope(() => {
      const ranges = (w: mx.Tensor) => w.reshape(-1, groupSize).abs().max({ axis: -1 });
      return ranges(clipped).divide(ranges(layer.weight)).toArray();
    });
    expectWithin(1e-3, limits as Float32Array, one.limits);
    expect(new Set(one.limits).size).toBeGreaterThan(1);
    mx.release([scales, clipped, captured]);
    layer.dispose();
  });
});

/**
 * How many groups may come out another way. A group that is cut on both sides lies evenly about zero, where MLX's
 * rounding of its zero point is a tie that the last bit of an activation decides.
 */
const undecided = 0.03;

describe("as mlx-lm", () => {
  test.each(models.map((one) => [one.name, one] as const))("%s", async (name, expected) => {
    mx.eval(mx.random.state.get());
    const live = mx.liveHandles();
    const { model, settings } = await original(name);
    const tokens = tokensOf(expected.tokens);
    const found: number[][] = [];
    const losses = await awqQuantize(model, tokens, {
      ...settings,
      onScales: (scales) => found.push([...scales.toArray()] as number[]),
    });
    const reductions = losses.map(({ plain, searched }) => searched / plain);
    expectWithin(0.02, reductions, expected.reductions, "block");
    expect(found.length).toBe(expected.scales.length);
    for (const [i, scales] of found.entries()) expectWithin(1e-3, scales, expected.scales[i]!, `channel of group ${i}`);
    const weights = new Map(model.namedParameters().filter(([, { dtype }]) => dtype !== "uint32"));
    expect([...weights.keys()].sort()).toEqual(Object.keys(expected.mean_squares));
    mx.scope(() => {
      for (const [path, square] of Object.entries(expected.mean_squares)) {
        expectWithin(0.02, [weights.get(path)!.square().mean().item()], [square], path);
      }
    });
    let all = 0;
    let off = 0;
    for (const [path, base64] of Object.entries(expected.block)) {
      const [got, wanted] = [weights.get(path)!.toArray(), float32(base64)];
      const differing = wanted.filter((value, i) => Math.abs(Number(got[i]) - value) > 1e-3 * Math.abs(value)).length;
      // What is not clipped is all the same.
      if (/norm|[qk]_proj/.test(path)) expect({ path, differing }).toEqual({ path, differing: 0 });
      all += wanted.length;
      off += differing;
    }
    expect(off / all).toBeLessThan(undecided);
    model.dispose();
    tokens.dispose();
    expect(mx.liveHandles()).toBe(live);
  });
});

test("a block that comes out worse is rounded to nearest instead", async () => {
  const [model, plain] = await Promise.all(["llama", "llama"].map((name) => original(name)));
  const tokens = tokensOf(models[0]!.tokens);
  // What the norm gives is divided for both, but only one of them is multiplied.
  const groups = [{ before: "post_attention_layernorm", layers: ["mlp.gate_proj"], part: "mlp" }];
  const losses = await awqQuantize(model!.model, tokens, { ...model!.settings, plan: { noClip: [], groups } });
  for (const { plain, searched } of losses) expect(searched).toBeGreaterThan(plain);
  for (const block of plain!.model.layers) quantize(block, how);
  const rounded = new Map(plain!.model.namedParameters());
  for (const [path, tensor] of model!.model.namedParameters()) {
    if (path.includes(".layers.")) expect(mx.arrayEqual(tensor, rounded.get(path)!).item()).toBe(1);
  }
  model!.model.dispose();
  plain!.model.dispose();
  tokens.dispose();
});

test.each(["lfm2", "lfm2-vl", "mimo", "muse_glimmer", "qwen2_vl", "qwen3_vl"])(
  "finds factors for three groups of each block of %s",
  async (name) => {
    const { model, settings } = await original(name);
    const tokens = tokensOf(models[0]!.tokens);
    let groups = 0;
    const losses = await awqQuantize(model, tokens, { ...settings, onScales: () => groups++ });
    expect(groups).toBe(3 * model.layers.length);
    // A factor that is not taken back elsewhere would make the block worse.
    for (const { plain, searched } of losses) expect(searched).toBeLessThan(plain);
    model.dispose();
    tokens.dispose();
  },
);

test.each(["gemma3_text", "llama_sliding"])("the blocks of %s run alone as within the model", async (name) => {
  const model = (await formulaModel(fixture<FormulaModel>(`models/${name}.json`))) as CausalLM;
  const tokens = mx.arange(48).multiply(37).remainder(256).reshape(2, 24).astype("uint32");
  const { x, masks } = await blockInputs(model, tokens);
  expect(new Set(masks).size).toBe(2);
  const logits = mx.scope(() => {
    const h = model.layers.reduce((h, block, i) => blockOutput(block, h, masks[i]!), x);
    const normed = model.model.lastNorm.forward(h);
    return model.lm_head?.forward(normed) ?? model.model.embedding.asLinear(normed);
  });
  const whole = model.forward(tokens);
  expect(mx.allclose(logits, whole, { rtol: 1e-4, atol: 1e-4 }).item()).toBe(1);
  model.dispose();
});
