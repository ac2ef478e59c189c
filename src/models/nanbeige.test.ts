import { expect, test } from "bun:test";
import { tinyModel } from "../../test/tiny-model";
import * as mx from "../mlx";

const logits = (model: Awaited<ReturnType<typeof tinyModel>>) =>
  mx.scope(() => model.forward(mx.array([[5, 9, 2]], "uint32")).toArray() as Float32Array);

test("layers run as often as the configuration or the losses of its training say, with a cache for each run", async () => {
  const entries = async (config: object) => {
    const model = await tinyModel({ model_type: "nanbeige", ...config });
    const cache = model.makeCache();
    expect(model.layers.length).toBe(2);
    for (const layer of cache) layer.dispose();
    model.dispose();
    return cache.length;
  };
  expect(await entries({})).toBe(2);
  expect(await entries({ num_loops: 3 })).toBe(6);
  expect(await entries({ num_loops: 3, loop_loss_weights: [0.5] })).toBe(4);
});

test("the last norm stands between runs unless it is skipped; one run is Llama", async () => {
  const of = async (config: object) => {
    const model = await tinyModel({ tie_word_embeddings: true, ...config });
    const found = logits(model);
    model.dispose();
    return found;
  };
  const nanbeige = { model_type: "nanbeige", num_loops: 2 };
  expect(await of({ ...nanbeige, num_loops: 1 })).toEqual(await of({}));
  expect(await of(nanbeige)).not.toEqual(await of({ ...nanbeige, skip_loop_final_norm: true }));
});

test("what has no layers here is refused", () => {
  for (const field of ["enable_double_loop_split", "loop_share_kv", "enable_depth_attention"]) {
    expect(tinyModel({ model_type: "nanbeige", [field]: true })).rejects.toThrow(
      `"${field}" is true, but mlxlm has no such layers`,
    );
  }
});
