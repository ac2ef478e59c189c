/** ERNIE's bias on the choice of experts, which mlx-lm leaves out: no fixture of its can tell. */
import { expect, test } from "bun:test";
import * as mx from "../mlx";
import { createModel, type LanguageModel } from ".";

const config = {
  model_type: "ernie4_5_moe",
  ...{ hidden_size: 16, num_hidden_layers: 1, intermediate_size: 32, num_attention_heads: 2, num_key_value_heads: 1 },
  ...{ vocab_size: 32, rms_norm_eps: 1e-5, max_position_embeddings: 64, use_bias: false, tie_word_embeddings: true },
  ...{ moe_num_experts: 4, moe_k: 2, moe_intermediate_size: 8 },
};

const bias = "model.layers.0.mlp.moe_statics.e_score_correction_bias";
const ids = () => mx.array([[1, 2, 3]], "uint32");

function logitsWith(model: LanguageModel, values: number[]): number[] {
  return mx.scope(() => {
    model.update([[bias, mx.array([values])]]);
    return [...(model.forward(ids()).toArray() as Float32Array)];
  });
}

test("decides on experts, and does not weigh them", async () => {
  mx.random.seed(0);
  const model = await createModel(config, "a test");
  const even = logitsWith(model, [0, 0, 0, 0]);
  expect(logitsWith(model, [5, 5, 5, 5])).toEqual(even);
  const [first, last] = [logitsWith(model, [9, 9, 0, 0]), logitsWith(model, [0, 0, 9, 9])];
  expect(first).not.toEqual(last);
  // Which experts are used is all that counts, not by how much they lead.
  expect(logitsWith(model, [4, 4, 0, 0])).toEqual(first);
  model.dispose();
});

test("is none where a checkpoint lacks it, and else the checkpoint's own", async () => {
  const model = await createModel(config, "a test");
  mx.scope(() => {
    const gate: [string, mx.Tensor] = ["model.layers.0.mlp.gate.weight", mx.zeros([4, 16])];
    expect(
      model
        .sanitize(new Map([gate]))
        .get(bias)
        ?.toList(),
    ).toEqual([[0, 0, 0, 0]]);
    const own = model.sanitize(new Map([gate, [bias, mx.ones([1, 4])]]));
    expect(own.get(bias)?.toList()).toEqual([[1, 1, 1, 1]]);
    expect([...model.sanitize(new Map([gate, ["model.mtp_block.0.norm.weight", mx.zeros([1])]])).keys()]).toEqual([
      gate[0],
      bias,
    ]);
  });
  model.dispose();
});
