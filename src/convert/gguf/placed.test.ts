/** What the tensors of a file become: halves, joined parts, packed ones that move, layers that draft. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeCase } from "../../../test/gguf-models";
import { UserError } from "../../errors";
import * as mx from "../../mlx";
import { architecture } from "../../models";
import { dequantize } from "../../nn";
import { openWeights } from "../load";
import { readConfig } from "../source";
import { type GgufHeader, type GgufTensor, readGgufHeader } from "./header";
import { placed } from "./placed";
import { GgufData } from "./tensors";
import { writtenType } from "./types";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-gguf-placed-"));
afterAll(() => rmSync(folder, { recursive: true }));

const tensor = (type: "F32" | "Q8_0" = "F32"): GgufTensor => ({
  path: "x.gguf",
  type: writtenType(type),
  shape: [32, 32],
  start: 0,
  bytes: 0,
});

function header(tensors: Record<string, GgufTensor>, metadata: Record<string, number | string> = {}): GgufHeader {
  return { tensors: new Map(Object.entries(tensors)), metadata: new Map(Object.entries(metadata)) };
}

async function parameters(modelType: string, config: object, file: GgufHeader) {
  const { gguf } = await architecture(modelType);
  return placed(file, { num_hidden_layers: 2, ...config }, gguf!, "x.gguf");
}

const delta = {
  linear_num_key_heads: 2,
  linear_num_value_heads: 4,
  linear_key_head_dim: 16,
  linear_value_head_dim: 16,
};

test("gates and values of experts in one tensor are its halves", async () => {
  const [gate, up] = await parameters("qwen3_5_moe", delta, header({ "blk.1.ffn_gate_up_exps.weight": tensor() }));
  const experts = "language_model.model.layers.1.mlp.switch_mlp";
  expect([gate!.path, up!.path]).toEqual([`${experts}.gate_proj`, `${experts}.up_proj`]);
  mx.scope(() => {
    const x = mx.arange(0, 24, 1, { dtype: "float32" }).reshape(2, 4, 3);
    expect(gate!.make([x]).toList()).toEqual(x.at(mx.slice(), mx.slice(0, 2)).toList());
    expect(up!.make([x]).toList()).toEqual(x.at(mx.slice(), mx.slice(2)).toList());
  });
  await expect(parameters("qwen3_5", delta, header({ "blk.1.ffn_gate_up_exps.weight": tensor() }))).rejects.toThrow(
    /"blk\.1\.ffn_gate_up_exps\.weight", which mlxlm has no place for/,
  );
});

test("a projection in two tensors needs both; old files have it whole", async () => {
  const config = { num_attention_heads: 4, qk_nope_head_dim: 16, kv_lora_rank: 32 };
  const [keys, values] = ["blk.0.attn_k_b.weight", "blk.0.attn_v_b.weight"];
  const both = await parameters("deepseek_v2", config, header({ [keys!]: tensor(), [values!]: tensor() }));
  expect(both.map(({ path, sources }) => [path, sources.length])).toEqual([["model.layers.0.self_attn.kv_b_proj", 2]]);
  const whole = await parameters("deepseek_v2", config, header({ "blk.0.attn_kv_b.weight": tensor() }));
  expect(whole.map(({ path, sources }) => [path, sources.length])).toEqual([["model.layers.0.self_attn.kv_b_proj", 1]]);
  const one = parameters("deepseek_v2", config, header({ [values!]: tensor() }));
  await expect(one).rejects.toThrow(UserError);
  await expect(one).rejects.toThrow("x.gguf has blk.0.attn_v_b.weight, but not blk.0.attn_k_b.weight");
});

test("queries, keys and values in one tensor are its rows, turned as each is by itself", async () => {
  const config = { num_attention_heads: 4, num_key_value_heads: 1, hidden_size: 8, head_dim: 4 };
  const whole: GgufTensor = { ...tensor(), shape: [24, 8] };
  const parts = await parameters("llama", config, header({ "blk.1.attn_qkv.weight": whole }));
  const places = ["q", "k", "v"].map((kind) => `model.layers.1.self_attn.${kind}_proj`);
  expect(parts.map(({ path }) => path)).toEqual(places);
  const single = await parameters(
    "llama",
    config,
    header({ "blk.1.attn_q.weight": tensor(), "blk.1.attn_k.weight": tensor(), "blk.1.attn_v.weight": tensor() }),
  );
  mx.scope(() => {
    const x = mx.arange(0, 24 * 8, 1, { dtype: "float32" }).reshape(24, 8);
    const own = x.split([16, 20], 0);
    for (const [i, part] of parts.entries()) {
      expect(part.make([x]).toList(), part.path).toEqual(single[i]!.make([own[i]!]).toList());
    }
  });
  const other: GgufTensor = { ...tensor(), shape: [32, 8] };
  await expect(parameters("llama", config, header({ "blk.1.attn_qkv.weight": other }))).rejects.toThrow(
    /"blk\.1\.attn_qkv\.weight", which mlxlm has no place for/,
  );
});

test("numbers of each layer are a list as long as there are layers", async () => {
  const keys = ["alpha_p", "alpha_n", "beta", "eps"].map((name) => `xielu.${name}`);
  const having = (values: unknown) =>
    header({}, Object.fromEntries(keys.map((key) => [key, values])) as Record<string, never>);
  const numbers = await parameters("apertus", {}, having([0.5, 0.25]));
  expect(numbers.map(({ path, kind }) => `${path}.${kind}`)).toEqual(
    ["alpha_p", "alpha_n", "beta", "eps"].flatMap((name) => [0, 1].map((i) => `model.layers.${i}.mlp.act_fn.${name}`)),
  );
  mx.scope(() => expect(numbers[1]!.make([]).toList()).toEqual([0.25]));
  for (const values of [[0.5], ["a", "b"], 1, "a"]) {
    await expect(parameters("apertus", {}, having(values))).rejects.toThrow(
      'x.gguf has no list "xielu.alpha_p" of 2 numbers',
    );
  }
});

test("parts of several types stay packed, in the widest of their packings", async () => {
  const { file } = await writeCase("internlm2", join(folder, "widened"), { type: "Q4_K_M" });
  const live = mx.liveHandles();
  const { tensors } = await readGgufHeader(file);
  const types = (layer: number) => ["q", "k", "v"].map((kind) => tensors.get(`blk.${layer}.attn_${kind}.weight`)!.type);
  expect([0, 1].map((layer) => types(layer).map(({ name }) => name))).toEqual([
    ["Q5_0", "Q5_0", "Q5_0"],
    ["Q5_0", "Q5_0", "Q5_0"],
  ]);
  const mixed = 2;
  expect(types(mixed).map(({ name }) => name)).toEqual(["Q5_0", "Q5_0", "Q8_0"]);
  const config = await readConfig(file);
  const { model } = await openWeights(file, config);
  const place = `model.layers.${mixed}.attention.wqkv`;
  const { gguf } = await architecture("internlm2");
  const data = new GgufData();
  mx.scope(() => {
    const parameters = new Map(model.namedParameters());
    const [weight, scales, biases] = ["weight", "scales", "biases"].map((kind) => parameters.get(`${place}.${kind}`)!);
    expect(weight!.shape.at(-1)).toBe(64 / 4);
    const whole = mx.dequantize(weight!, scales!, biases!, { bits: 8, groupSize: 32 }).astype("float32");
    const parts = ["q", "k", "v"].map((kind) => data.readPlain(tensors.get(`blk.${mixed}.attn_${kind}.weight`)!));
    const expected = gguf!.joined!(config)["attention.wqkv"]!.join(parts.map((part) => part.astype("float32")));
    const largest = expected.abs().max().item() as number;
    // Scales and biases are in float16.
    expect(whole.subtract(expected).abs().max().item()).toBeLessThan(largest * 2e-3);
  });
  data.close();
  model.dispose();
  expect(mx.liveHandles()).toBe(live);
});

test("layers that draft tokens are left out, where the file says that it has some", async () => {
  const tensors = { "blk.1.attn_norm.weight": tensor(), "blk.2.nextn.eh_proj.weight": tensor() };
  const own = await parameters(
    "qwen3_5",
    delta,
    header(tensors, { "general.architecture": "qwen35", "qwen35.nextn_predict_layers": 1 }),
  );
  expect(own.map(({ path }) => path)).toEqual(["language_model.model.layers.1.input_layernorm"]);
  await expect(parameters("qwen3_5", delta, header(tensors))).rejects.toThrow(/"blk\.2\.nextn\.eh_proj\.weight"/);
});

test("columns that move with their groups stay packed, others do not", async () => {
  const file = header({ "blk.0.ssm_out.weight": tensor("Q8_0") });
  const [narrow] = await parameters("qwen3_5", delta, file);
  expect(narrow!.affine).toBeUndefined();
  const [wide] = await parameters("qwen3_5", { ...delta, linear_value_head_dim: 32 }, file);
  expect(wide!.affine).toEqual({ bits: 8, groupSize: 32 });
});

/** The weights of a file in Q8_0 are the model's within the steps of their blocks. */
async function expectWeightsOf(written: { file: string; folder: string }, check?: (names: string[]) => void) {
  const live = mx.liveHandles();
  const { model } = await openWeights(written.file, await readConfig(written.file));
  const { model: original } = await openWeights(written.folder, await readConfig(written.folder));
  check?.(model.namedParameters().map(([name]) => name));
  dequantize(model);
  const before = new Map(original.namedParameters());
  const after = model.namedParameters();
  expect(after.length).toBe(before.size);
  for (const [name, weight] of after) {
    mx.scope(() => {
      const apart = weight.astype("float32").subtract(before.get(name)!).abs().max().item() as number;
      const largest = before.get(name)!.astype("float32").abs().max().item() as number;
      expect(apart, name).toBeLessThanOrEqual(largest / 127);
    });
  }
  model.dispose();
  original.dispose();
  expect(mx.liveHandles()).toBe(live);
}

test.each([16, 32])("Q8_0 with heads of %i gives the weights back within its steps", async (width) => {
  const settings = { linear_value_head_dim: width, linear_key_head_dim: width };
  const written = await writeCase("qwen3_5", join(folder, String(width)), { type: "Q8_0", settings });
  await expectWeightsOf(written, (names) => {
    expect(names.some((name) => name.endsWith("0.linear_attn.out_proj.scales"))).toBe(width === 32);
  });
});

/** Models whose tensors lie in another form in files, each in its own way. */
const moved = [
  "gpt_neox",
  "internlm2",
  "glm",
  "afmoe",
  "bailing_moe_v3",
  "bitnet",
  "deepseek_v4",
  "glm5_next",
  "gpt_bigcode",
  "hy_v4",
];

test.each(moved)("Q8_0 of %s gives the weights back within its steps", async (name) => {
  await expectWeightsOf(await writeCase(name, join(folder, "moved"), { type: "Q8_0" }), (names) => {
    expect(names.some((name) => name.endsWith(".scales"))).toBe(true);
  });
});
