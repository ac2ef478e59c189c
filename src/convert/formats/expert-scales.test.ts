/** Experts in NVFP4 with a scale for each, as Muse Spark is published. Truth is the weights unpacked, in float32. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hashed, type Source, saveCheckpoint } from "../../../test/parity/checkpoint-files";
import { row } from "../../../test/parity/decode";
import { expectValues, fixture, float32 } from "../../../test/parity/fixtures";
import { UserError } from "../../errors";
import * as mx from "../../mlx";
import { convertModel } from "../convert";
import { loadWeights } from "../load";
import { readConfig } from "../source";

const expected = fixture<{
  config: Record<string, unknown>;
  source: Source;
  prompt: number[];
  quantization: object;
  tensors: Record<string, [dtype: string, shape: number[], hash: string]>;
  logits: string;
}>("expert-scales.json");

const temporary = mkdtempSync(join(tmpdir(), "mlxlm-expert-scales-"));
afterAll(() => rmSync(temporary, { recursive: true }));

// The generator keeps one key for good.
mx.random.seed(1);
mx.eval(mx.random.state.get());

let folders = 0;
const fresh = () => join(temporary, `${folders++}`);
const save = (source = expected.source) => saveCheckpoint(fresh(), expected.config, source);
const open = async (folder: string) => loadWeights(folder, await readConfig(folder));

async function expectModel(folder: string): Promise<void> {
  const before = mx.liveHandles();
  const { model, config } = await open(folder);
  mx.scope(() => {
    const tensors = Object.fromEntries(model.namedParameters().map(([name, tensor]) => [name, hashed(tensor)]));
    expect(tensors).toEqual(expected.tensors);
    const floating = model.namedParameters().filter(([, tensor]) => /float/.test(tensor.dtype));
    model.update(floating.map(([name, tensor]) => [name, tensor.astype("float32")]));
    const wanted = float32(expected.logits);
    expect(wanted.every(Number.isFinite)).toBe(true);
    expectValues(model.forward(row(expected.prompt)).at(0, -1).toArray(), wanted, { tolerance: 1e-4 });
  });
  expect(config.quantization).toMatchObject(expected.quantization);
  model.dispose();
  expect(mx.liveHandles()).toBe(before);
}

test("as published: tensors to the bit, and the logits", () => expectModel(save()));

test("convert keeps scales in float32, whatever dtype the rest gets", async () => {
  const target = fresh();
  await convertModel({ path: save() }, target, { dtype: "bfloat16" });
  await expectModel(target);
});

test("convert unpacks with the scales", async () => {
  const [source, target] = [save(), fresh()];
  await convertModel({ path: source }, target, { dequantize: true });
  expect(JSON.parse(readFileSync(join(target, "config.json"), "utf8"))).not.toHaveProperty("quantization");
  const [packed, plain] = [await open(source), await open(target)];
  mx.scope(() => {
    const tensors = [packed, plain].map(({ model }) => new Map(model.namedParameters()));
    const path = "model.language_model.layers.1.mlp.experts.up_proj";
    const [weight, scales, global] = ["weight", "scales", "global_scale"].map(
      (kind) => tensors[0]!.get(`${path}.${kind}`)!,
    );
    const unpacked = mx.dequantize(weight!, scales!, null, { mode: "nvfp4", groupSize: 16, bits: 4, dtype: "float32" });
    const exact = unpacked.multiply(global!.divide(6 * 448).expandDims([-1, -2]));
    const saved = tensors[1]!.get(`${path}.weight`)!;
    // Rounded to bfloat16 once.
    expect(saved.dtype).toBe("bfloat16");
    expect(
      saved
        .astype("float32")
        .subtract(exact)
        .abs()
        .lessEqual(exact.abs().multiply(2 ** -8))
        .all()
        .item(),
    ).toBeTruthy();
    expect(exact.abs().max().item()).toBeGreaterThan(0.2);
  });
  packed.model.dispose();
  plain.model.dispose();
});

describe("is refused", () => {
  const down = "model.language_model.layers.1.mlp.experts.down_proj";
  const joint = "model.language_model.layers.1.mlp.experts.gate_up_proj";
  const changed = (change: (source: Source) => void) => {
    const source = structuredClone(expected.source);
    change(source);
    return source;
  };
  test.each([
    ["without the scale of an expert", changed((s) => delete s[`${down}_weight_scale_2`]), /down_proj_weight_scale_2/],
    ["without the scales of groups", changed((s) => delete s[`${joint}_weight_scale`]), /gate_up_proj_weight_scale/],
    ["an expert too few", changed((s) => (s[`${down}_weight_scale_2`]![2] = [5])), /scale_2 is \(5\), expected \(6\)/],
    ["one scale for gate and up", changed((s) => (s[`${joint}_weight_scale_2`]![2] = [6])), /expected \(6, 2\)/],
    ["scales of other groups", changed((s) => (s[`${down}_weight_scale`]![2] = [6, 32, 1])), /only experts in nvfp4/],
    ["weights of other widths", changed((s) => (s[down]![2] = [6, 32, 8])), /32 inputs in 2 words/],
    ["words that are cut", changed((s) => (s[down]![2] = [6, 32, 18])), /do not belong together|last dimension/],
    [
      "scales in half precision",
      changed((s) => {
        delete s[`${down}_weight_scale_2`];
        s[down] = ["bits", "U32", [6, 32, 4]];
        s[`${down.replace("down_proj", "down_proj.global_scale")}`] = ["scale", "BF16", [6]];
      }),
      /global_scale of bfloat16/,
    ],
  ])("%s", async (_, source, message) => {
    const folder = save(source);
    const before = mx.liveHandles();
    const error = await open(folder).then(
      () => null,
      (thrown) => thrown,
    );
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toMatch(message);
    expect(error.hint).toBeTruthy();
    expect(mx.liveHandles()).toBe(before);
  });
});
