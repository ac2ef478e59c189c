/** Decoding through whole layers as one kernel, on a GPU that has it: the same logits as from reading the text at once. */
import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import {
  alternateWindows,
  gemma3,
  hasKernels,
  kernelModel,
  llama,
  llama3Scaling,
  someTokens,
  withExperts,
} from "../../test/kernel-model";
import * as mx from "../mlx";
import { KVCache, RotatingKVCache } from "../nn";

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
/** Widths that the warps of a block share unevenly: 18 and 37 times 32. */
const uneven = { ...llama, hidden_size: 576, intermediate_size: 1184 };
/** The last number says how far logits may be off, of the largest: norms behind a layer's halves make more of what bfloat16 leaves out. */
const cases = (
  [
    ["Llama", llama, null],
    ["Llama in float16", { ...llama, torch_dtype: "float16" }, null],
    ["Llama, 4 bits in groups of 32", llama, { bits: 4, groupSize: 32 }],
    ["Llama, 8 bits in groups of 64", llama, { bits: 8, groupSize: 64 }],
    ["Llama with other frequencies", { ...llama, rope_scaling: llama3Scaling }, null],
    ["Qwen 2, whose projections have biases", { ...llama, model_type: "qwen2" }, null],
    ["Qwen 2, 4 bits", { ...llama, model_type: "qwen2" }, { bits: 4, groupSize: 64 }],
    ["Qwen 3, which norms heads", qwen3, null],
    ["Qwen 3, 4 bits in groups of 64", qwen3, { bits: 4, groupSize: 64 }],
    ["Qwen 3 with experts", experts, null],
    ["Qwen 3 with experts, 4 bits", experts, { bits: 4, groupSize: 64 }],
    ["Qwen 3 with experts of another width, 4 bits", withExperts(qwen3, 320), { bits: 4, groupSize: 64 }],
    ["Llama of other widths", uneven, null],
    ["Llama of other widths, 4 bits in groups of 32", uneven, { bits: 4, groupSize: 32 }],
    [
      "Llama of other widths, 8 bits in groups of 64",
      { ...uneven, intermediate_size: 1216 },
      { bits: 8, groupSize: 64 },
    ],
    ["Llama with windows", { ...llama, layer_types: alternateWindows, sliding_window: 32 }, null, 0.02],
    ["Gemma 3", gemma3, null, 0.15],
    ["Gemma 3 with a window that is longer", { ...gemma3, sliding_window: 512 }, null, 0.15],
    ["Gemma 3, 4 bits in groups of 64", gemma3, { bits: 4, groupSize: 64 }, 0.15],
  ] as const
).map(([name, config, how, allowed = 0.05]) => [name, config, how, allowed] as const);

describe.skipIf(!hasKernels)("one token through a layer as one kernel", () => {
  test.each(cases)("%s", async (_, config, how, allowed) => {
    const model = await kernelModel(config, how);
    const tokens = someTokens(330);
    const used = [KVCache, RotatingKVCache].map(({ prototype }) => spyOn(prototype, "filledBy"));
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
    const calls = used.reduce((count, { mock }) => count + mock.calls.length, 0);
    for (const spy of used) spy.mockRestore();
    // Where a layer is not taken whole, its attention is. A ring takes the first token behind a prompt the long way.
    const rings = cache.filter((layer) => layer instanceof RotatingKVCache).length;
    expect(calls).toBe(30 * config.num_hidden_layers - rings);
    expect(off / scale).toBeLessThan(allowed);
    for (const one of cache) one.dispose();
    model.dispose();
  });
});
