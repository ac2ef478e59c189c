/** Decoding several sequences through whole layers as one operation, on a GPU that has it: the same logits as each has by itself. */
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
import { mergeCaches, Residual } from "../nn";

// CUDA compiles a kernel for each shape when it is first used.
setDefaultTimeout(120_000);

const wide = { ...llama, num_attention_heads: 4, num_key_value_heads: 4, head_dim: 128 };
/** The last number says how far logits may be off, of the largest. */
const cases = (
  [
    ["Llama", llama, null, [20, 33, 7]],
    ["Llama in float16", { ...llama, torch_dtype: "float16" }, null, [20, 33, 7]],
    ["Llama, rows of the same length", llama, null, [40, 40]],
    ["Llama, keys in parts", llama, null, [700, 300, 1]],
    ["Llama, gates in teams of 4 warps", { ...llama, intermediate_size: 5200 }, null, [20, 33, 7]],
    [
      "Llama, gates in teams of 8 warps",
      { ...llama, intermediate_size: 7168 },
      null,
      Array.from({ length: 19 }, (_, i) => i + 5),
    ],
    [
      "Llama, gates in one team",
      { ...llama, intermediate_size: 14336 },
      null,
      Array.from({ length: 10 }, (_, i) => i + 5),
    ],
    ["Llama, gates of other inputs", { ...llama, hidden_size: 576, intermediate_size: 7168 }, null, [20, 33, 7]],
    ["Llama, gates in one small team", { ...llama, hidden_size: 256 }, null, [20, 33, 7]],
    [
      "Llama with other frequencies, 4 bits",
      { ...llama, rope_scaling: llama3Scaling },
      { bits: 4, groupSize: 64 },
      [20, 290],
    ],
    ["Qwen 2, whose projections have biases", { ...llama, model_type: "qwen2" }, null, [20, 33, 7]],
    ["Qwen 2, 8 bits", { ...llama, model_type: "qwen2" }, { bits: 8, groupSize: 64 }, [20, 33, 7]],
    ["Qwen 3, which norms heads", { ...wide, model_type: "qwen3" }, null, [20, 5, 260, 17]],
    ["Heads of 256 features", { ...llama, head_dim: 256, num_key_value_heads: 1 }, null, [30, 600]],
    ["A dense layer ahead of experts", { ...withExperts(wide, 512), mlp_only_layers: [0] }, null, [20, 33, 7]],
    ["Llama with windows", { ...llama, layer_types: alternateWindows, sliding_window: 32 }, null, [20, 70, 3]],
    ["Gemma 3", gemma3, null, [20, 33, 7], 0.15],
    ["Gemma 3, windows that fill", gemma3, null, [115, 122, 121], 0.15],
    ["Gemma 3, windows that are full, and one that is not", gemma3, null, [300, 150, 20, 127], 0.15],
    ["Gemma 3, windows that are full, keys in parts", { ...gemma3, sliding_window: 512 }, null, [900, 20], 0.15],
    ["Gemma 3, 4 bits", gemma3, { bits: 4, groupSize: 64 }, [300, 20], 0.15],
  ] as const
).map(([name, config, how, lengths, allowed = 0.05]) => [name, config, how, lengths, allowed] as const);

describe.skipIf(!hasKernels)("a token of each of several sequences", () => {
  test.each(cases)("%s", async (_, config, how, given, allowed) => {
    const model = await kernelModel(config, how);
    const steps = 20;
    const lengths: number[] = [...given];
    const texts = lengths.map((length, row) => someTokens(length + steps, row));
    const whole = texts.map((tokens) => mx.keep(mx.scope(() => model.forward(mx.array([tokens], "int32")))));
    const each = texts.map((tokens, row) => {
      const cache = model.makeCache();
      mx.scope(() => mx.eval(model.forward(mx.array([tokens.slice(0, lengths[row])], "int32"), { cache })));
      return cache;
    });
    const cache = each[0]!.map((_, layer) => mergeCaches(each.map((caches) => caches[layer]!)));
    const layers = spyOn(Residual.prototype, "through");
    let off = 0;
    for (let i = 0; i < steps; i++) {
      mx.scope(() => {
        const tokens = mx.array(
          texts.map((text, row) => [text[lengths[row]! + i]!]),
          "int32",
        );
        const logits = model.forward(tokens, { cache }).at(":", -1).astype("float32");
        for (const [row, all] of whole.entries()) {
          const wanted = all.at(0, lengths[row]! + i).astype("float32");
          const scale = wanted.abs().max().item();
          off = Math.max(off, logits.at(row).subtract(wanted).abs().max().item() / scale);
        }
      });
      // Rows leave while the kernel's writes are on their way.
      if (i === steps / 2 && whole.length > 2) {
        const kept = [0, 2];
        for (const layer of cache) layer.filter(kept);
        for (const [row, all] of whole.entries()) if (!kept.includes(row)) all.dispose();
        for (const list of [whole, texts, lengths])
          list.splice(0, list.length, ...kept.map((row) => list[row] as never));
      }
    }
    expect(off).toBeLessThan(allowed);
    const taken = layers.mock.results.filter(({ value }) => value !== null).length;
    // Layers with experts are not one operation.
    const wholeLayers = "mlp_only_layers" in config ? config.mlp_only_layers.length : config.num_hidden_layers;
    expect(taken).toBe(wholeLayers * steps);
    layers.mockRestore();
    for (const one of [...cache, ...each.flat()]) one.dispose();
    for (const one of whole) one.dispose();
    model.dispose();
  });
});
