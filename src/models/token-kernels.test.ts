/** Decoding through whole layers as one kernel, on a GPU that has it: the same logits as from reading the text at once. */
import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { hasKernels, kernelModel, llama, llama3Scaling, someTokens, withExperts } from "../../test/kernel-model";
import * as mx from "../mlx";
import { KVCache } from "../nn";

// CUDA compiles a kernel for each shape when it is first used.
setDefaultTimeout(120_000);

const qwen3 = {
  ...llama,
  model_type: "qwen3",
  num_attention_heads: 4,
  num_key_value_heads: 4,
  head_dim: 128,
  rope_theta: 1e6,
};
const experts = withExperts(qwen3, 256);
const cases = [
  ["Llama", llama, null],
  ["Llama in float16", { ...llama, torch_dtype: "float16" }, null],
  ["Llama, 4 bits in groups of 32", llama, { bits: 4, groupSize: 32 }],
  ["Llama, 8 bits in groups of 64", llama, { bits: 8, groupSize: 64 }],
  ["Llama with other frequencies", { ...llama, rope_scaling: llama3Scaling }, null],
  ["Qwen 2, whose projections have biases, 4 bits", { ...llama, model_type: "qwen2" }, { bits: 4, groupSize: 64 }],
  ["Qwen 3, which norms heads", qwen3, null],
  ["Qwen 3, 4 bits in groups of 64", qwen3, { bits: 4, groupSize: 64 }],
  ["Qwen 3 with experts", experts, null],
  ["Qwen 3 with experts, 4 bits", experts, { bits: 4, groupSize: 64 }],
] as const;

describe.skipIf(!hasKernels)("one token through a layer as one kernel", () => {
  test.each(cases)("%s", async (_, config, how) => {
    const model = await kernelModel(config, how);
    const tokens = someTokens(330);
    const used = spyOn(KVCache.prototype, "filledBy");
    const cache = model.makeCache();
    const [off, scale] = mx.scope(() => {
      const all = model.forward(mx.array([tokens], "int32"));
      mx.eval(model.forward(mx.array([tokens.slice(0, 300)], "int32"), { cache }));
      let off = 0;
      for (let i = 300; i < tokens.length; i++) {
        const step = model
          .forward(mx.array([[tokens[i]!]], "int32"), { cache })
          .at(0, -1)
          .astype("float32");
        off = Math.max(off, step.subtract(all.at(0, i).astype("float32")).abs().max().item());
      }
      return [off, all.astype("float32").abs().max().item()];
    });
    // Where a layer is not taken whole, its attention is.
    expect(used).toHaveBeenCalledTimes(30 * config.num_hidden_layers);
    used.mockRestore();
    expect(off / scale).toBeLessThan(0.05);
    for (const one of cache) one.dispose();
    model.dispose();
  });
});
