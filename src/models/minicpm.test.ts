import { expect, test } from "bun:test";
import { tinyModel } from "../../test/tiny-model";
import * as mx from "../mlx";

const minicpm = { model_type: "minicpm", dim_model_base: 16, scale_depth: 1.4, scale_emb: 3 };

test("a head that is the embedding and one that is loaded from it give the same logits", async () => {
  const tied = await tinyModel({ ...minicpm, tie_word_embeddings: true });
  const own = await tinyModel(minicpm);
  mx.scope(() => {
    const weights = new Map(tied.namedParameters());
    own.loadWeights(own.sanitize(weights));
    expect([...own.sanitize(new Map(own.namedParameters())).keys()]).toContain("lm_head.weight");
    const [a, b] = [tied, own].map((model) => model.forward(mx.array([[5, 9, 2]], "uint32")).toArray());
    expect(a).toEqual(b!);
  });
  tied.dispose();
  own.dispose();
});

test("hidden states are divided by the ratio of widths ahead of the head", async () => {
  const logits = async (base: number) => {
    const model = await tinyModel({ ...minicpm, dim_model_base: base });
    const found = mx.scope(() => model.forward(mx.array([[5, 9, 2]], "uint32")).toArray() as Float32Array);
    model.dispose();
    return found;
  };
  const [half, whole] = [await logits(16), await logits(32)];
  expect(half).toEqual(whole.map((value) => value / 2));
});
