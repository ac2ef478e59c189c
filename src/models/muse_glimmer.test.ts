import { expect, test } from "bun:test";
import { tinyModel } from "../../test/tiny-model";
import * as mx from "../mlx";
import { RotatingKVCache } from "../nn";

const tiny = (changes: object) => tinyModel({ model_type: "muse_glimmer", head_dim: 8, ...changes });

test("the pattern of layers is counted from the last, which sees all", async () => {
  const model = await tiny({ num_hidden_layers: 6 });
  const cache = model.makeCache();
  expect(cache.map((layer) => layer instanceof RotatingKVCache)).toEqual([true, false, true, true, true, false]);
  for (const each of [...cache, model]) each.dispose();
});

test("checkpoints of each layout get the same names, without the parts for images", async () => {
  const model = await tiny({});
  mx.scope(() => {
    const one = mx.zeros([1]);
    const sanitized = (names: string[]) => [...model.sanitize(new Map(names.map((name) => [name, one]))).keys()];
    const own = ["model.norm.weight", "lm_head.weight"];
    expect(sanitized(own)).toEqual(own);
    expect(sanitized(["model.language_model.norm.weight", "lm_head.weight"])).toEqual(own);
    expect(sanitized(["language_model.model.norm.weight", "language_model.lm_head.weight"])).toEqual(own);
    const parts = ["vision_tower.ln_pre.weight", "vision_adapter.fc1.weight", "vision_projection.weight"];
    expect(sanitized([...parts, ...parts.map((name) => `model.${name}`)])).toEqual([]);
  });
  model.dispose();
});

test("bases for another number of layers are refused by the field's name", async () => {
  await expect(tiny({ layer_rope_theta: [0] })).rejects.toThrow(
    '"layer_rope_theta" has 1 entries, but "num_hidden_layers" is 2',
  );
});

test("a base of zero is no positions; any other is the one base of all layers", async () => {
  const logits = async (changes: object) => {
    const model = await tiny({ layer_types: ["full_attention", "full_attention"], ...changes });
    const found = mx.scope(() => model.forward(mx.array([[5, 9, 2, 9]], "uint32")).toArray() as Float32Array);
    model.dispose();
    return found;
  };
  const unplaced = await logits({});
  expect(await logits({ layer_rope_theta: [0, 0] })).toEqual(unplaced);
  const placed = await logits({ layer_rope_theta: [1, 1] });
  expect(placed).not.toEqual(unplaced);
  expect(await logits({ layer_rope_theta: [7, 7] })).toEqual(placed);
});
