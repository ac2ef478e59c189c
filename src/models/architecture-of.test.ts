/** The architecture of a configuration whose model type several architectures have. */
import { expect, test } from "bun:test";
import { architectureOf } from "./registry";

test("architectures of config.json pick among those of one model type", async () => {
  const [hybrid, v3] = [await import("./bailing_hybrid"), await import("./bailing_moe_v3")];
  const model = async (config: Record<string, unknown>) =>
    (await architectureOf({ model_type: "bailing_hybrid", ...config })).Model;
  expect(await model({})).toBe(hybrid.Model);
  expect(await model({ architectures: ["BailingMoeV2_5ForCausalLM"] })).toBe(hybrid.Model);
  expect(await model({ architectures: ["BailingMoeV3ForCausalLM"] })).toBe(v3.Model);
  expect(await model({ architectures: "BailingMoeV3ForCausalLM" })).toBe(v3.Model);
  expect(await model({ architectures: ["constructor"] })).toBe(hybrid.Model);
});

test("what only layers that attend to all have stays as it is", async () => {
  const { quantize } = await import("./bailing_moe_v3");
  const config = { num_hidden_layers: 5, layer_group_size: 2 };
  const kept = [0, 1, 2, 3, 4].map((layer) => quantize(`model.layers.${layer}.attention.g_proj`, config));
  expect(kept).toEqual([undefined, "leave", undefined, "leave", "leave"]);
  expect(quantize("model.layers.0.attention.b_proj", config)).toBe("leave");
  expect(quantize("model.layers.0.attention.o_proj", config)).toBeUndefined();
});
