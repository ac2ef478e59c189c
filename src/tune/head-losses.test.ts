/** Losses of a head part by part are those of all logits at once, and so are their gradients; they take less memory. */
import { describe, expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import { expectValues } from "../../test/parity/fixtures";
import { tinyModel, tinyVocabulary } from "../../test/tiny-model";
import * as mx from "../mlx";
import { type LanguageModel, type SplitModel, splitAtHead } from "../models";
import { crossEntropy, quantize } from "../nn";
import { headLosses } from "./head-losses";
import { linearToLora, trainableParameters, unfreezeBlocks } from "./linear-to-lora";

countExactBytes();

const [rows, length] = [3, 7];

/** Room for the logits of four tokens. */
const most = 4 * tinyVocabulary * 4;

type Losses = (model: SplitModel, hidden: mx.Tensor, targets: mx.Tensor) => mx.Tensor;

const whole: Losses = (model, hidden, targets) => crossEntropy(model.scores(hidden), targets);
const inParts: Losses = (model, hidden, targets) => headLosses(model, hidden, targets, { differentiated: true, most });

/** A weighted loss and its gradients by all that is trained. */
function lossAndGradients(model: LanguageModel, losses: Losses): { loss: mx.Tensor; gradients: mx.Tensor[] } {
  const split = splitAtHead(model)!;
  const named = kept(model);
  const ids = (shift: number) =>
    Int32Array.from({ length: rows * length }, (_, i) => (31 * i + shift) % tinyVocabulary);
  const tokens = (shift: number) => mx.array(ids(shift), "int32", [rows, length]);
  const weights = mx
    .arange(rows * length)
    .remainder(5)
    .reshape(rows, length);
  const [loss, gradients] = mx.valueAndGrad((parameters: mx.Tensor[]) => {
    model.update(parameters.map((tensor, i) => [named[i]![0], tensor]));
    return losses(split, split.hidden(tokens(1)), tokens(8))
      .multiply(weights)
      .astype("float32")
      .sum();
  })(named.map(([, tensor]) => tensor)) as [mx.Tensor, mx.Tensor[]];
  model.update(named);
  mx.release(named.map(([, tensor]) => tensor));
  return { loss, gradients };
}

/** Makes ready what is trained, by what the head is. */
const cases: Record<string, { config?: object; prepare(model: LanguageModel): void }> = {
  "a head that is frozen": { config: { tie_word_embeddings: false }, prepare: (model) => lora(model) },
  "an embedding as the head": { prepare: (model) => lora(model) },
  "a packed head": {
    config: { tie_word_embeddings: false },
    prepare(model) {
      mx.scope(() => quantize(model, { groupSize: 32, bits: 4 }));
      lora(model);
    },
  },
  "a head with an adapter": {
    config: { tie_word_embeddings: false },
    prepare: (model) => lora(model, ["self_attn.q_proj", "lm_head"]),
  },
  "an embedding that is trained": {
    prepare(model) {
      model.freeze();
      unfreezeBlocks(model, 1, { embeddings: true });
    },
  },
  "logits with a cap": {
    config: { model_type: "gemma2", head_dim: 8, query_pre_attn_scalar: 8, final_logit_softcapping: 3 },
    prepare: (model) => lora(model),
  },
};

/** What is trained; it outlives that other tensors take its place. */
function kept(model: LanguageModel): [path: string, tensor: mx.Tensor][] {
  const named = trainableParameters(model);
  for (const [, tensor] of named) mx.keep(tensor);
  return named;
}

function lora(model: LanguageModel, keys: string[] | null = null): void {
  model.freeze();
  linearToLora(model, 2, { rank: 4, scale: 3, dropout: 0, keys });
  // The second factor begins at zero, which would hide the first one's gradient.
  const named = trainableParameters(model);
  mx.scope(() =>
    model.update(named.map(([path, x]) => [path, x.add(mx.random.normal({ shape: x.shape }).multiply(0.1))])),
  );
}

describe("of a model with", () => {
  for (const [name, { config = {}, prepare }] of Object.entries(cases)) {
    test(name, async () => {
      const model = await tinyModel(config);
      prepare(model);
      mx.scope(() => {
        const expected = lossAndGradients(model, whole);
        const found = lossAndGradients(model, inParts);
        expectValues([found.loss.item()], [expected.loss.item()], { tolerance: 1e-5 });
        expect(found.gradients.length).toBe(expected.gradients.length);
        for (const [i, gradient] of found.gradients.entries()) {
          expectValues(gradient.toArray() as Float32Array, expected.gradients[i]!.toArray() as Float32Array, {
            tolerance: 1e-4,
          });
        }
        expect(expected.gradients.some((gradient) => gradient.abs().max().item() > 0)).toBe(true);
      });
      model.dispose();
    });
  }
});

test("without gradients, and in half precision", async () => {
  const model = await tinyModel();
  mx.scope(() => {
    model.update(model.namedParameters().map(([name, x]) => [name, x.astype("bfloat16")]));
    const split = splitAtHead(model)!;
    const hidden = mx.random.normal({ shape: [2, 9, 32] }).astype("bfloat16");
    const targets = mx.array(
      Int32Array.from({ length: 18 }, (_, i) => i),
      "int32",
      [2, 9],
    );
    const expected = whole(split, hidden, targets);
    for (const differentiated of [false, true]) {
      const found = headLosses(split, hidden, targets, { differentiated, most: most / 2 });
      expect(found.dtype).toBe("bfloat16");
      expect(found.toList()).toEqual(expected.toList());
    }
  });
  model.dispose();
});

test("less memory than the logits at once, the same in every step", async () => {
  // Logits that are large beside what the layers take.
  const [count, vocab_size] = [256, 16_384];
  const model = await tinyModel({ vocab_size });
  lora(model);
  const split = splitAtHead(model)!;
  const named = kept(model);
  const ids = mx.array(
    Int32Array.from({ length: count }, (_, i) => i),
    "int32",
    [1, count],
  );
  const step = (losses: Losses) => {
    mx.resetPeakMemory();
    const results = mx.scope(() =>
      mx.valueAndGrad((parameters: mx.Tensor[]) => {
        model.update(parameters.map((tensor, i) => [named[i]![0], tensor]));
        return losses(split, split.hidden(ids), ids).mean();
      })(named.map(([, tensor]) => tensor)),
    );
    model.update(named);
    mx.eval(results);
    for (const tensor of [results[0] as mx.Tensor, ...(results[1] as mx.Tensor[])]) tensor.dispose();
    return mx.peakMemory() - bytesInUse();
  };
  const logits = count * vocab_size * 4;
  const parts: Losses = (model, hidden, targets) =>
    headLosses(model, hidden, targets, { differentiated: true, most: logits / 64 });
  const atOnce = step(whole);

  step(parts);
  const [handles, active] = [mx.liveHandles(), bytesInUse()];
  const peaks = Array.from({ length: 50 }, () => step(parts));
  expect(Math.max(...peaks)).toBeLessThan(atOnce / 2);
  expect(mx.liveHandles()).toBe(handles);
  expect(bytesInUse()).toBe(active);
  mx.release(named.map(([, tensor]) => tensor));
  model.dispose();
}, 60_000);
