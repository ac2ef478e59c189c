/** OLMo 1 in its two forms: the same model under other names. */
import { expect, test } from "bun:test";
import { row } from "../../test/parity/decode";
import { expectValues, fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel, formulaTensors } from "../../test/parity/formula-model";
import * as mx from "../mlx";
import type { LanguageModel } from "./language-model";
import { architectureOf } from "./registry";

const expected = fixture<FormulaModel & { prompt: number[] }>("models/hf_olmo.json");
const { d_model, n_layers, n_heads, embedding_size, mlp_hidden_size, rope_theta } = expected.config as Record<
  string,
  number
>;

const config = {
  model_type: "olmo",
  hidden_size: d_model,
  num_hidden_layers: n_layers,
  num_attention_heads: n_heads,
  intermediate_size: mlp_hidden_size! / 2,
  vocab_size: embedding_size,
  rope_theta,
};

/** The tensors of AI2's program under the names of transformers. */
function renamed(weights: Map<string, mx.Tensor>): Map<string, mx.Tensor> {
  const parts: Record<string, readonly string[]> = {
    att_proj: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    attn_out: ["self_attn.o_proj"],
    ff_proj: ["mlp.up_proj", "mlp.gate_proj"],
    ff_out: ["mlp.down_proj"],
  };
  return new Map(
    [...weights].flatMap(([name, weight]): [string, mx.Tensor][] => {
      const found = /^model\.transformer\.blocks\.(\d+)\.(\w+)\.weight$/.exec(name);
      if (!found) return [[name.includes("wte") ? "model.embed_tokens.weight" : "lm_head.weight", weight]];
      const names = parts[found[2]!]!;
      return weight.split(names.length, 0).map((part, i) => [`model.layers.${found[1]}.${names[i]}.weight`, part]);
    }),
  );
}

async function ofTransformers(change: object = {}): Promise<LanguageModel> {
  const { Args, Model } = await architectureOf(config);
  const model = new Model(Args.parse({ ...config, ...change }));
  mx.scope(() => model.loadWeights(model.sanitize(renamed(formulaTensors(expected)))));
  return model;
}

const logits = (model: LanguageModel) => mx.scope(() => model.forward(row(expected.prompt)).toArray()) as Float32Array;

test("transformers' form computes what AI2's does", async () => {
  const [ai2, transformers] = [await formulaModel(expected), await ofTransformers()];
  expectValues(logits(transformers), logits(ai2), { tolerance: 1e-4 });
  for (const model of [ai2, transformers]) model.dispose();
});

test("both bound queries, keys and values alike, where the configuration says so", async () => {
  const clip_qkv = 0.5;
  const plain = await formulaModel(expected);
  const bounded = await formulaModel({ ...expected, config: { ...expected.config, clip_qkv } });
  const transformers = await ofTransformers({ clip_qkv });
  expectValues(logits(transformers), logits(bounded), { tolerance: 1e-4 });
  expect(Math.max(...logits(bounded).map((x, i) => Math.abs(x - logits(plain)[i]!)))).toBeGreaterThan(0.1);
  for (const model of [plain, bounded, transformers]) model.dispose();
});

test("architectures of config.json tell the forms apart", async () => {
  const [ai2, transformers] = [await import("./hf_olmo"), await import("./olmo")];
  const model = async (architectures: string[]) => (await architectureOf({ model_type: "olmo", architectures })).Model;
  expect(await model(["OLMoForCausalLM"])).toBe(ai2.Model);
  expect(await model(["OlmoForCausalLM"])).toBe(transformers.Model);
});
