/** Samples packed in a row have the losses and gradients of each by itself. */
import { describe, expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import { tinyHybrid, tinyMamba, tinyModel, tinySharing, tinyVocabulary } from "../../test/tiny-model";
import { NumpyRandom } from "../mersenne";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { type Dataset, iteratePacked, packingFacts } from "./data";
import { packRows } from "./data/pack";
import { checkpointBlocks } from "./gradient-checkpoint";
import { linearToLora, trainableParameters } from "./linear-to-lora";
import { defaultLoss } from "./loss";
import { checkPacking } from "./packing";
import { type TokenBatch, toDevice } from "./token-batch";

const sample = (i: number, length: number, offset: number) => ({
  tokens: Int32Array.from({ length }, (_, t) => (7 * i + 13 * t + 1) % tinyVocabulary),
  offset,
});

/** Of each sample how many tokens it has, and how many of them have no loss. */
const sizes = [
  [5, 0],
  [9, 3],
  [3, 1],
  [12, 11],
  [40, 2],
  [7, 7],
  [2, 0],
  [31, 5],
] as const;

const samples = sizes.map(([length, offset], i) => sample(i, length, offset));

const dataset: Dataset = {
  length: samples.length,
  at: (index) => samples[index]!,
  where: (index) => `sample ${index}`,
};

const options = (batchSize: number) => ({ batchSize, maxSeqLength: 32, random: new NumpyRandom(1) });

/** Each row of the data by itself, cut, without padding. */
const alone = samples.map(({ tokens, offset }): TokenBatch => {
  const kept = tokens.subarray(0, 32);
  return { tokens: kept, shape: [1, kept.length], lengths: Int32Array.of(offset, kept.length) };
});

/** The sum of a batch's losses, how many there are, and the gradients of the sum. */
function sums(model: LanguageModel, batch: TokenBatch): { loss: number; count: number; gradients: Float32Array[] } {
  const named = trainableParameters(model);
  for (const [, tensor] of named) mx.keep(tensor);
  const result = mx.scope(() => {
    const [[loss, count], gradients] = mx.valueAndGrad((parameters: mx.Tensor[]) => {
      model.update(parameters.map((tensor, i) => [named[i]![0], tensor]));
      const [loss, count] = defaultLoss(model, toDevice(batch, model.vocabSize), { differentiated: true });
      return [loss.multiply(count), count] as [mx.Tensor, mx.Tensor];
    })(named.map(([, tensor]) => tensor)) as [[mx.Tensor, mx.Tensor], mx.Tensor[]];
    const numbers = gradients.map((gradient) => gradient.toArray() as Float32Array);
    return { loss: loss.item(), count: count.item(), gradients: numbers };
  });
  model.update(named);
  mx.release(named.map(([, tensor]) => tensor));
  return result;
}

const configs = {
  llama: {},
  "llama, sliding windows": { layer_types: ["sliding_attention", "full_attention"], sliding_window: 4 },
  "gemma2, capped scores": { model_type: "gemma2", head_dim: 8, query_pre_attn_scalar: 8 },
  "qwen3, stretched positions": {
    model_type: "qwen3",
    head_dim: 8,
    rope_theta: 10_000,
    tie_word_embeddings: true,
    max_position_embeddings: 64,
    rope_scaling: { type: "yarn", factor: 4, original_max_position_embeddings: 16 },
  },
  "gemma4_text, shared keys": tinySharing,
  "gpt2, learned positions": {
    model_type: "gpt2",
    n_ctx: 64,
    n_embd: 32,
    n_head: 4,
    n_layer: 2,
    n_positions: 64,
    layer_norm_epsilon: 1e-5,
  },
};

describe("packed rows are their samples:", () => {
  for (const [name, config] of Object.entries(configs)) {
    test(name, async () => {
      const model = await tinyModel(config);
      checkPacking(model, name);
      model.freeze();
      linearToLora(model, 2, { rank: 4, scale: 3, dropout: 0 });
      const named = trainableParameters(model);
      mx.scope(() => {
        const noise = (x: mx.Tensor) => mx.random.normal({ shape: x.shape }).multiply(0.1);
        model.update(named.map(([path, x]) => [path, x.add(noise(x))]));
      });
      const rows = packRows(
        samples.map(({ tokens }) => Math.min(32, tokens.length)),
        32,
      ).length;
      const { value: batch } = iteratePacked(dataset, options(rows)).next();
      // Of samples that are all prompt nothing counts, alone either.
      const apart = alone.map((one) => sums(model, one)).filter(({ count }) => count > 0);
      const count = apart.reduce((sum, one) => sum + one.count, 0);
      const loss = apart.reduce((sum, one) => sum + one.loss, 0);
      const gradients = apart[0]!.gradients.map((first, i) =>
        first.map((_, at) => apart.reduce((sum, one) => sum + one.gradients[i]![at]!, 0)),
      );
      const undo = [() => () => {}, () => checkpointBlocks(model.layers)];
      for (const prepare of undo) {
        const restore = prepare();
        const together = sums(model, batch);
        restore();
        expect(together.count).toBe(count);
        expectValues([together.loss], [loss], { tolerance: 1e-5 });
        for (const [i, gradient] of together.gradients.entries()) {
          expectValues(gradient, gradients[i]!, { tolerance: 1e-3 });
        }
      }
      model.dispose();
    });
  }
});

describe("models that cannot be packed are refused by name:", () => {
  for (const [name, config] of Object.entries({
    mamba2: tinyMamba,
    qwen3_5: tinyHybrid,
    "dynamic rope": { max_position_embeddings: 64, rope_scaling: { type: "dynamic", factor: 2 } },
  })) {
    test(name, async () => {
      const model = await tinyModel(config);
      expect(() => checkPacking(model, "some/model")).toThrow(/^some\/model cannot be trained with packed samples/);
      model.dispose();
    });
  }
});

describe("rows", () => {
  test("hold every sample once, and none beyond its length", () => {
    const lengths = Array.from({ length: 500 }, (_, i) => 1 + ((i * 7919) % 100));
    const rows = packRows(lengths, 100);
    expect(rows.flat().sort((a, b) => a - b)).toEqual(lengths.map((_, i) => i));
    for (const row of rows) expect(row.reduce((sum, i) => sum + lengths[i]!, 0)).toBeLessThanOrEqual(100);
    const total = lengths.reduce((sum, length) => sum + length, 0);
    expect(rows.length).toBeLessThanOrEqual(Math.ceil(total / 100) + 1);
  });

  test("are used once before any is used again, in an order that a seed gives", () => {
    const epoch = (batchSize: number) => {
      const rows = packingFacts(dataset, options(1)).rows;
      const batches = iteratePacked(dataset, options(batchSize));
      const seen: string[] = [];
      while (seen.length < rows) {
        const { value } = batches.next();
        for (let row = 0; row < batchSize; row++) seen.push(value.where!(row));
      }
      return seen;
    };
    const [once, again] = [epoch(1), epoch(1)];
    expect(new Set(once).size).toBe(once.length);
    expect(again).toEqual(once);
  });

  test("facts say what packing saves", () => {
    const facts = packingFacts(dataset, options(4));
    const lengths = samples.map(({ tokens }) => Math.min(32, tokens.length));
    const total = lengths.reduce((sum, length) => sum + length, 0);
    expect(facts).toMatchObject({ samples: 8, tokens: total, filled: total / (facts.rows * 32) });
    expect(facts.filled_by_padding).toBeCloseTo(total / (2 * 4 * 32), 10);
    expect(facts.filled).toBeGreaterThan(facts.filled_by_padding);
  });

  test("fewer than a batch are refused", () => {
    expect(() => iteratePacked(dataset, options(20)).next()).toThrow("fewer than a batch of 20");
  });
});
