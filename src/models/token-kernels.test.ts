/** Decoding through whole layers as one kernel, on a GPU that has it: the same logits as from reading the text at once. */
import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { makeReady } from "../convert/ready";
import * as mx from "../mlx";
import { KVCache, quantize } from "../nn";
import { architecture, createModel } from ".";

// CUDA compiles a kernel for each shape when it is first used.
setDefaultTimeout(120_000);

const llama = {
  model_type: "llama",
  hidden_size: 512,
  num_hidden_layers: 3,
  intermediate_size: 1024,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  head_dim: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  vocab_size: 1024,
  max_position_embeddings: 4096,
  tie_word_embeddings: false,
};
const qwen3 = {
  ...llama,
  model_type: "qwen3",
  num_attention_heads: 4,
  num_key_value_heads: 4,
  head_dim: 128,
  rope_theta: 1e6,
};
const experts = {
  ...qwen3,
  model_type: "qwen3_moe",
  // A token takes all: which are chosen must not hang on the last bit.
  num_experts: 4,
  num_experts_per_tok: 4,
  moe_intermediate_size: 256,
  decoder_sparse_step: 1,
  mlp_only_layers: [],
  norm_topk_prob: true,
};
const cases = [
  ["Llama", llama, null],
  ["Llama, 4 bits in groups of 32", llama, { bits: 4, groupSize: 32 }],
  ["Llama, 8 bits in groups of 64", llama, { bits: 8, groupSize: 64 }],
  [
    "Llama with other frequencies",
    {
      ...llama,
      rope_scaling: {
        rope_type: "llama3",
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 64,
      },
    },
    null,
  ],
  ["Qwen 2, whose projections have biases, 4 bits", { ...llama, model_type: "qwen2" }, { bits: 4, groupSize: 64 }],
  ["Qwen 3, which norms heads", qwen3, null],
  ["Qwen 3, 4 bits in groups of 64", qwen3, { bits: 4, groupSize: 64 }],
  ["Qwen 3 with experts, 4 bits", experts, { bits: 4, groupSize: 64 }],
] as const;

/** Kernels that stream weights are on CUDA, from compute capability 9. */
const streams = mx.defaultDevice() !== "cpu" && Number(mx.deviceInfo().compute_capability_major ?? 0) >= 9;

describe.skipIf(!streams)("one token through a layer as one kernel", () => {
  test.each(cases)("%s", async (_, config, how) => {
    mx.random.seed(3);
    const model = await createModel(config, "test");
    mx.scope(() => model.update(model.namedParameters().map(([name, x]) => [name, x.astype("bfloat16")])));
    if (how) quantize(model, how);
    makeReady(model, await architecture(config.model_type));
    const tokens = Array.from({ length: 330 }, (_, i) => (i * 7919) % config.vocab_size);
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
