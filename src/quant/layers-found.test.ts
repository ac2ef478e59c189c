/**
 * What the quantizers and adapters find in each architecture, by the models of the fixtures: all that multiplies hidden
 * states, or a reason why not; and AWQ's groups, by what a model computes when their factors move.
 */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { row } from "../../test/parity/decode";
import { expectValues, fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import { weight } from "../../test/parity/weights";
import { UserError } from "../errors";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { type Module, MultiLinear, packing } from "../nn";
import { defaultKeys } from "../tune/linear-to-lora";
import { awqFacts, awqQuantize, checkAwq } from "./awq";
import { applyScales } from "./awq-search";
import { blocksFollow } from "./block-walk";
import { gptqLayers } from "./gptq";
import { quantizableLayers } from "./source-model";

/** Matrices of blocks that are no linear layers: they stay as they are, or are packed by rounding alone. */
const others =
  /(^|\.)(conv1d|conv_1d|(input|recurrent)_gate_|conv|[qkv]_conv|[qkv]_conv1d|mlp\.gate|ffn\.gate|ngram_embedding|mixer\.gate|feed_forward\.gate|[a-z_]*router|r_k|[a-z_]*res_proj|[gqk]_norm|mixer\.[qk]_|(key|value)_conv|embed_q|unembed_out|o_a_proj|A_log|fn)(\.|$)/;

const child = (module: Module, path: string): Module | undefined =>
  path.split(".").reduce<unknown>((at, name) => (at as Record<string, unknown> | undefined)?.[name], module) as
    | Module
    | undefined;

const fourBits = packing({ bits: 4, groupSize: 32 });

/** Whether the inputs of all layers of a fixture are whole groups. */
function isWhole(model: LanguageModel, settings: Parameters<typeof checkAwq>[1]): boolean {
  try {
    checkAwq(model, settings);
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

const seen = new Set<string>();
for (const file of readdirSync(new URL("../../test/fixtures/models/", import.meta.url)).sort()) {
  const expected = fixture<FormulaModel & { prompt: number[] }>(`models/${file}`);
  const type = expected.config.model_type;
  if (seen.has(type)) continue;
  seen.add(type);

  describe(type, () => {
    test("GPTQ, dynamic quantization and adapters find every linear layer", async () => {
      const model = await formulaModel(expected);
      const keys = new Set(defaultKeys(model));
      let found = 0;
      for (const block of model.layers) {
        const linear = new Set(gptqLayers(block).map(([path]) => path));
        const packable = new Set(quantizableLayers(block).map(([path]) => path));
        found += linear.size;
        expect([...linear].filter((path) => !keys.has(path) || !packable.has(path))).toEqual([]);
        const matrices = block.namedParameters().filter(([path, x]) => path.endsWith("weight") && x.ndim > 1);
        const missed = matrices.map(([path]) => path.replace(/\.?weight$/, "")).filter((path) => !linear.has(path));
        const unexplained = missed.filter((path) => !others.test(path) && !(child(block, path) instanceof MultiLinear));
        // Layers with products of their own kind say so in their type.
        expect(unexplained.filter((path) => !isSpecial(child(block, path)))).toEqual([]);
      }
      expect(found > 0 || model.layers.every((block) => block.namedModules().some(([, one]) => isSpecial(one)))).toBe(
        true,
      );
      model.dispose();
    });

    test("AWQ moves factors without changing what is computed, or refuses", async () => {
      const plan = await awqFacts(type).catch((error: unknown) => error as UserError);
      if (plan instanceof Error) {
        expect(plan).toBeInstanceOf(UserError);
        expect(plan.message).toContain(type);
        return;
      }
      const model = await formulaModel(expected);
      const before = mx.liveHandles();
      expect(blocksFollow(model)).toBeTrue();
      const logits = () => mx.scope(() => model.forward(row(expected.prompt)).astype("float32").toArray());
      const own = logits();
      let moved = 0;
      for (const [index, block] of model.layers.entries()) {
        for (const group of plan.groups) {
          const layers = group.layers.flatMap((path) => child(block, path) ?? []);
          const source = child(block, group.before);
          if (!source || layers.length === 0) continue;
          if (group.part) expect(child(block, group.part)).toBeDefined();
          mx.scope(() => {
            const size = (layers[0] as unknown as { weight: mx.Tensor }).weight.dim(-1);
            const factors = mx.array(weight(`${index} ${group.before} bias`, [size], 0), "float32", [size]);
            applyScales(source, layers, factors.multiply(4).exp());
          });
          moved += 1;
        }
      }
      expect(moved).toBeGreaterThanOrEqual(model.layers.length);
      expectValues(logits() as Float32Array, own as Float32Array, { tolerance: 1e-3 });

      // The searches find what each group and layer is given.
      const settings = { plan, how: fourBits, embedding: fourBits, grid: 2 };
      if (isWhole(model, settings)) {
        const tokens = mx.keep(mx.scope(() => mx.array([expected.prompt, expected.prompt.toReversed()], "uint32")));
        const losses = await awqQuantize(model, tokens, settings);
        expect(losses.filter(({ plain, searched }) => !(plain > 0 && searched > 0))).toEqual([]);
        mx.release(tokens);
        expect(model.namedModules().some(([, module]) => "packing" in module)).toBeTrue();
        model.dispose();
        return;
      }
      expect(mx.liveHandles()).toBe(before);
      model.dispose();
    });
  });
}

/** A layer whose product is of its own kind: ternary, or over a Hadamard transform. */
function isSpecial(module: Module | undefined): boolean {
  return module !== undefined && /^(Bit|Hadamard)/.test(module.constructor.name);
}
