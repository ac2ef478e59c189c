/** Walking a model's blocks: the same states and moments as in one pass, and which models can be walked. */
import { describe, expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import { tinyHybrid, tinyMamba, tinyModel, tinyVocabulary } from "../../test/tiny-model";
import type * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { intercept, Linear, type Module, type Residual } from "../nn";
import { BlockWalk, blocksFollow } from "./block-walk";
import { SecondMoments } from "./second-moments";

const rows = Array.from({ length: 5 }, (_, i) =>
  Array.from({ length: 12 }, (_, j) => (7 * i + 5 * j) % tinyVocabulary),
);
const batches = [rows.slice(0, 3), rows.slice(3)];

const linearLayers = (module: Module) =>
  module.namedModules().flatMap(([, one]) => (one instanceof Linear ? [one] : []));

const kinds: [string, object][] = [
  ["llama", { tie_word_embeddings: false }],
  ["sliding llama", { sliding_window: 4, layer_types: ["sliding_attention", "full_attention"] }],
  ["mamba2", tinyMamba],
  ["qwen3_5", tinyHybrid],
];

describe.each(kinds)("%s", (_, overrides) => {
  test("block by block has the moments of one pass", async () => {
    const model = await tinyModel(overrides);
    expect(blocksFollow(model)).toBe(true);
    const layers = linearLayers(model);
    const whole = new SecondMoments(layers);
    const once = new BlockWalk(model, batches);
    await once.runWhole({ alongside: () => whole.finishPass() });
    whole.stop();

    const walk = new BlockWalk(model, batches);
    const found = new Map<Module, mx.Tensor>();
    const parts: SecondMoments[] = [];
    const watch = async (watched: Module[], run: (options: { alongside: () => mx.Tensor[] }) => Promise<void>) => {
      const moments = new SecondMoments(watched);
      parts.push(moments);
      await run({ alongside: () => moments.finishPass() });
      moments.stop();
      for (const { layers, H } of moments.sums) for (const layer of layers) found.set(layer, H);
    };
    for (const [i, block] of model.layers.entries()) {
      await watch(linearLayers(block), (options) => walk.run(i, options));
    }
    const inBlocks = new Set(model.layers.flatMap(linearLayers));
    await watch(
      layers.filter((layer) => !inBlocks.has(layer)),
      (options) => walk.runAround(options),
    );
    expect(walk.states.map(({ shape }) => shape)).toEqual(batches.map((batch) => [batch.length, 12, 32]));
    expect(found.size).toBe(layers.length);
    for (const { layers, H } of whole.sums) {
      for (const layer of layers) expectValues(found.get(layer)!.toArray(), H.toArray() as Float32Array);
    }
    for (const each of [walk, once, whole, ...parts, model]) each.dispose();
  });
});

test("layers with one input share its moments", async () => {
  const model = await tinyModel();
  const moments = new SecondMoments(linearLayers(model));
  const walk = new BlockWalk(model, batches);
  await walk.runWhole({ alongside: () => moments.finishPass() });
  expect(moments.sums.map(({ layers }) => layers.length)).toEqual([3, 1, 2, 1, 3, 1, 2, 1]);
  for (const each of [moments, walk, model]) each.dispose();
});

/** A model whose blocks are called in another way. */
async function changed(change: (model: LanguageModel) => void): Promise<boolean> {
  const model = await tinyModel();
  change(model);
  const follows = blocksFollow(model);
  model.dispose();
  return follows;
}

describe("a model cannot be walked", () => {
  test("that feeds a block's result to a later one, beside the state", async () => {
    const follows = await changed((model) => {
      const [first, second] = model.layers;
      const forward = model.forward.bind(model);
      let seen: mx.Tensor | null = null;
      // As a trunk that keeps results does: what it sees of the first block goes to the second as another argument.
      model.forward = (tokens) => {
        const inner = (first as unknown as { forward(...args: unknown[]): unknown }).forward;
        const undo = intercept(first!, (_, args) => {
          const result = inner.apply(first, args);
          seen = (result as Residual).value;
          return result;
        });
        const next = (second as unknown as { forward(...args: unknown[]): unknown }).forward;
        const undoNext = intercept(second!, (_, [x, mask]) => next.call(second, x, mask, seen));
        try {
          return forward(tokens);
        } finally {
          undoNext();
          undo();
        }
      };
    });
    expect(follows).toBe(false);
  });

  test("that calls a block twice", async () => {
    const follows = await changed((model) => {
      const forward = model.forward.bind(model);
      model.forward = (tokens) => {
        forward(tokens);
        return forward(tokens);
      };
    });
    expect(follows).toBe(false);
  });

  test("whose blocks give more than a tensor", async () => {
    const follows = await changed((model) => {
      intercept(model.layers[0]!, (original, args) => Object.assign([original(...args)], { extra: true }));
    });
    expect(follows).toBe(false);
  });
});
