/** Checkpoints in other tools' formats are loaded as Python mlx-lm loads them, to the bit; broken ones are refused. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hashed, type Source, saveCheckpoint } from "../../../test/parity/checkpoint-files";
import { row } from "../../../test/parity/decode";
import { expectValues, fixture, float32 } from "../../../test/parity/fixtures";
import { ExitCode, UserError } from "../../errors";
import * as mx from "../../mlx";
import { loadWeights } from "../load";
import { readConfig } from "../source";

interface Case {
  config: Record<string, unknown>;
  source: Source;
  quantization: object | null;
  tensors: Record<string, [dtype: string, shape: number[], hash: string]>;
  logits: string;
}

const { prompt, cases, refused } = fixture<{
  prompt: number[];
  cases: Record<string, Case>;
  refused: Record<string, Pick<Case, "config" | "source">>;
}>("formats.json");

const temporary = mkdtempSync(join(tmpdir(), "mlxlm-formats-"));
afterAll(() => rmSync(temporary, { recursive: true }));

// The generator keeps one key for good.
mx.random.seed(1);
mx.eval(mx.random.state.get());

let folders = 0;

const save = (config: object, source: Source) => saveCheckpoint(join(temporary, `${folders++}`), config, source);

for (const [name, expected] of Object.entries(cases)) {
  test(`${name}: tensors and configuration to the bit, and the logits`, async () => {
    const folder = save(expected.config, expected.source);
    const before = mx.liveHandles();
    const { model, config } = await loadWeights(folder, await readConfig(folder));
    mx.scope(() => {
      const tensors = Object.fromEntries(model.namedParameters().map(([name, tensor]) => [name, hashed(tensor)]));
      expect(tensors).toEqual(expected.tensors);
      // In float32, as the oracle's: MLX's CPU kernels sum in the activations' dtype.
      const floating = model.namedParameters().filter(([, tensor]) => /float/.test(tensor.dtype));
      model.update(floating.map(([name, tensor]) => [name, tensor.astype("float32")]));
      const logits = model.forward(row(prompt.map((token) => token % model.vocabSize)));
      const wanted = float32(expected.logits);
      expect(wanted.every(Number.isFinite)).toBe(true);
      expectValues(logits.at(0, -1).toArray(), wanted, { tolerance: 5e-4 });
    });
    expect(config.quantization ?? null).toEqual(expected.quantization);
    model.dispose();
    expect(mx.liveHandles()).toBe(before);
  });
}

const sound = cases.awq!;
const q = "model.layers.0.self_attn.q_proj";
const changed = (change: (source: Source) => void, from = sound) => {
  const source = structuredClone(from.source);
  change(source);
  return { config: from.config, source };
};
const configured = (settings: object, from = sound) => ({
  config: { ...from.config, ...settings },
  source: from.source,
});

const broken: [string, Pick<Case, "config" | "source">, RegExp, code?: number][] = [
  ...Object.entries(refused).map(([name, { config, source }]): (typeof broken)[number] => {
    return [`${name}, as Python refuses it`, { config, source }, /mlxlm reads|MLX lacks/, ExitCode.notFound];
  }),
  ["no scales", changed((s) => delete s[`${q}.scales`]), /q_proj .* has no scales/],
  ["a qweight that is no matrix", changed((s) => (s[`${q}.qweight`]![2] = [512])), /no matrices/],
  [
    "a qweight of floats",
    changed((s) => {
      s[`${q}.qweight`] = ["weight", "F32", [64, 8]];
    }),
    /packed in float32/,
  ],
  ["scales of another width", changed((s) => (s[`${q}.scales`]![2] = [2, 48])), /scales \(2, 48\) do not fit/],
  ["scales of no group", changed((s) => (s[`${q}.scales`]![2] = [0, 64])), /scales \(0, 64\) do not fit/],
  ["qzeros of another width", changed((s) => (s[`${q}.qzeros`]![2] = [2, 7])), /qzeros \(2, 7\)/],
  [
    "groups that MLX lacks",
    changed((s) => {
      s[`${q}.scales`]![2] = [4, 64];
      s[`${q}.qzeros`]![2] = [4, 8];
    }),
    /groups of 16 inputs/,
  ],
  ["act-order", changed((s) => (s[`${q}.g_idx`] = ["bits", "I32", [64]]), cases.gptq), /out of order/],
  [
    "nothing that is quantized",
    { config: sound.config, source: { "model.norm.weight": ["weight", "F16", [64]] } },
    /no tensor is quantized/,
  ],
  [
    "asymmetric integers",
    configured({
      quantization_config: {
        quant_method: "compressed-tensors",
        format: "pack-quantized",
        config_groups: { group_0: { weights: { num_bits: 4, symmetric: false } } },
      },
    }),
    /asymmetric/,
    ExitCode.notFound,
  ],
  [
    "integers of 8 bits",
    configured({
      quantization_config: {
        quant_method: "compressed-tensors",
        format: "pack-quantized",
        config_groups: { group_0: { weights: { num_bits: 8 } } },
      },
    }),
    /8 bits/,
    ExitCode.notFound,
  ],
  [
    "blocks of text",
    configured({ quantization_config: { quant_method: "fp8", weight_block_size: "128" } }),
    /"weight_block_size" is "128"/,
  ],
  [
    "a block too few",
    changed((s) => (s[`${q}.weight_scale_inv`]![2] = [1, 2]), cases["fp8 in blocks"]),
    /not one for each block of 128 × 128/,
  ],
  [
    "bytes without scales",
    changed((s) => delete s[`${q}.weight_scale_inv`], cases["fp8 in blocks"]),
    /without .*q_proj\.weight_scale_inv/,
  ],
  [
    "a ternary layer of the wrong shape",
    changed((s) => (s[`${q}.weight`]![2] = [8, 64]), cases.bitnet),
    /q_proj\.weight is \(8, 64\)/,
  ],
  [
    "a method that every object has",
    configured({ quantization_config: { quant_method: "constructor" } }),
    /"constructor"/,
    ExitCode.notFound,
  ],
  ["a method that is a number", configured({ quantization_config: { quant_method: 4 } }), /"4"/, ExitCode.notFound],
];

describe("is refused", () => {
  test.each(broken)("%s", async (_, { config, source }, message, code = ExitCode.failure) => {
    const folder = save(config, source);
    const before = mx.liveHandles();
    const error = await loadWeights(folder, await readConfig(folder)).then(
      () => null,
      (thrown) => thrown,
    );
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toMatch(message);
    expect(error.hint).toBeTruthy();
    expect(error.code).toBe(code);
    expect(mx.liveHandles()).toBe(before);
  });
});

test("settings may stand in text_config, or in ModelOpt's own file", async () => {
  const { quantization_config, ...plain } = sound.config;
  const inner = save({ ...plain, text_config: { quantization_config } }, {});
  expect((await readConfig(inner)).quantization_config).toEqual(quantization_config as object);
  const beside = save(plain, {});
  writeFileSync(join(beside, "hf_quant_config.json"), JSON.stringify({ quantization: { quant_algo: "NVFP4" } }));
  expect((await readConfig(beside)).quantization_config).toMatchObject({ quant_method: "modelopt" });
});
