/** Checkpoints as gpt-oss and DeepSeek V3's family are published: Python's tensors to the bit, its logits and its text. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadWeights } from "../../src/convert/load";
import { readConfig } from "../../src/convert/source";
import { UserError } from "../../src/errors";
import * as mx from "../../src/mlx";
import { hashed, type Source, saveCheckpoint } from "./checkpoint-files";
import { decode, row } from "./decode";
import { expectValues, fixture, float32 } from "./fixtures";

interface Case {
  config: Record<string, unknown>;
  source: Source;
  salt: number;
  quantization: object | null;
  tensors: Record<string, [dtype: string, shape: number[], hash: string]>;
  logits: string;
  greedy: number[];
}

const { prompt, cases } = fixture<{ prompt: number[]; cases: Record<string, Case> }>("layouts.json");

const temporary = mkdtempSync(join(tmpdir(), "mlxlm-layouts-"));
afterAll(() => rmSync(temporary, { recursive: true }));

// The generator keeps one key for good.
mx.random.seed(1);
mx.eval(mx.random.state.get());

for (const [name, expected] of Object.entries(cases)) {
  test(name, async () => {
    const folder = saveCheckpoint(
      join(temporary, name.replaceAll(" ", "-")),
      expected.config,
      expected.source,
      expected.salt,
    );
    const before = mx.liveHandles();
    const { model, config } = await loadWeights(folder, await readConfig(folder));
    expect(config.quantization ?? null).toEqual(expected.quantization);
    mx.scope(() => {
      const tensors = Object.fromEntries(model.namedParameters().map(([path, tensor]) => [path, hashed(tensor)]));
      expect(tensors).toEqual(expected.tensors);
      // In float32, as the oracle's: MLX's CPU kernels sum in the activations' dtype.
      const floating = model.namedParameters().filter(([, tensor]) => /float/.test(tensor.dtype));
      model.update(floating.map(([path, tensor]) => [path, tensor.astype("float32")]));
      expectValues(model.forward(row(prompt)).at(0, -1).toArray(), float32(expected.logits), { tolerance: 1e-4 });
    });
    const cache = model.makeCache();
    const decodable = { forward: model.forward.bind(model), makeCache: () => cache };
    expect(decode(decodable, prompt, expected.greedy.length)).toEqual(expected.greedy);
    for (const layer of cache) layer.dispose();
    model.dispose();
    expect(mx.liveHandles()).toBe(before);
  });
}

const oss = cases["gpt_oss, mxfp4 experts"]!;
const transformers = cases["gpt_oss, experts as transformers saves them"]!;
const deepseek = cases["deepseek_v3, single experts"]!;
const packed = cases["deepseek_v3, keys and values packed"]!;
const experts = "model.layers.0.mlp.experts";
const keysValues = "model.layers.1.self_attn.kv_b_proj";
const third = "model.layers.1.mlp.experts.3.up_proj.weight";

/** What is wrong, the case that it is a change of, the tensor with what takes its place, and the message. */
const broken: [string, Case, [string, Source[string] | null], RegExp][] = [
  [
    "words for blocks",
    oss,
    [`${experts}.gate_up_proj_blocks`, ["bits", "U8", [4, 64, 32]]],
    /expected \(4, 64, 2, 16\)/,
  ],
  [
    "blocks of floats",
    oss,
    [`${experts}.down_proj_blocks`, ["weight", "F32", [4, 64, 1, 16]]],
    /down_proj_blocks is float32, expected uint8/,
  ],
  ["a row too few", oss, [`${experts}.gate_up_proj_scales`, ["exponent", "U8", [4, 63, 2]]], /is \(4, 63, 2\)/],
  ["a bias of one expert", oss, [`${experts}.gate_up_proj_bias`, ["weight", "BF16", [64]]], /is \(64\), expected/],
  ["one expert's matrix", transformers, [`${experts}.down_proj`, ["weight", "BF16", [32, 64]]], /is \(32, 64\)/],
  ["keys and values of one head", deepseek, [`${keysValues}.weight`, ["weight", "BF16", [64, 32]]], /is \(64, 32\)/],
  ["no keys and values", deepseek, [`${keysValues}.weight`, null], /missing: .*embed_q\.weight/],
  [
    "an expert of another size",
    deepseek,
    [third, ["weight", "BF16", [32, 32]]],
    /experts\.3\.up_proj.* expected \(32, 64\)/,
  ],
  ["an expert too few", deepseek, [third, null], /missing: .*switch_mlp\.up_proj/],
  ["no groups", packed, [`${keysValues}.scales`, ["scale", "BF16", [256, 0]]], /no quantization has/],
  ["groups of ten and a bit", packed, [`${keysValues}.scales`, ["scale", "BF16", [256, 3]]], /no quantization has/],
  ["a scalar of scales", packed, [`${keysValues}.scales`, ["scale", "BF16", []]], /no quantization has/],
  ["scales of other rows", packed, [`${keysValues}.scales`, ["scale", "BF16", [128, 1]]], /scales is \(128, 1\)/],
  ["scales without biases", packed, [`${keysValues}.biases`, null], /not .*kv_b_proj\.biases/],
  ["scales without a weight", packed, [`${keysValues}.weight`, null], /missing: .*embed_q/],
  ["words of floats", packed, [`${keysValues}.weight`, ["weight", "F32", [256, 4]]], /is float32, expected uint32/],
];

describe("is refused", () => {
  test.each(broken)("%s", async (what, { config, source, salt }, [name, tensor], message) => {
    const { [name]: _, ...rest } = source;
    const changed = tensor ? { ...rest, [name]: tensor } : rest;
    const folder = saveCheckpoint(join(temporary, what.replaceAll(" ", "-")), config, changed, salt);
    const before = mx.liveHandles();
    const error = await loadWeights(folder, await readConfig(folder)).then(
      () => null,
      (thrown) => thrown,
    );
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toMatch(message);
    expect(error.hint).toBeTruthy();
    expect(mx.liveHandles()).toBe(before);
  });
});
