/** Factors beside weights, as NVFP4 files have them. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ggufBytes, type RawTensor, raw, tinyLlama, zeros } from "../../../test/gguf-file";
import { blocksOf, everyType } from "../../../test/parity/gguf-blocks";
import { UserError } from "../../errors";
import * as mx from "../../mlx";
import { nvfp4Largest } from "../../nn";
import { loadModel, openWeights } from "../load";
import { readConfig } from "../source";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-scaled-"));
afterAll(() => rmSync(folder, { recursive: true }));

const width = 64;
const nvfp4 = everyType.find(({ name }) => name === "NVFP4")!;

const packed = (name: string, dims: number[]): RawTensor => ({
  ...{ name, dims, code: nvfp4.code },
  data: blocksOf(nvfp4, dims.reduce((a, b) => a * b) / nvfp4.block),
});

const factors = (name: string, values: number[]): RawTensor => ({
  ...zeros(name, [values.length]),
  data: new Uint8Array(new Float32Array(values).buffer),
});

/** A Llama with such tensors; of four experts, where some are asked for. */
function written(name: string, own: RawTensor[], experts = 0): string {
  const changed: Record<string, ReturnType<typeof raw.u32>> = {
    "llama.embedding_length": raw.u32(width),
    "llama.feed_forward_length": raw.u32(width),
  };
  const metadata = tinyLlama.metadata.map(([key, value]) => [key, changed[key] ?? value] as [string, typeof value]);
  if (experts > 0) metadata.push(["llama.expert_count", raw.u32(experts)], ["llama.expert_used_count", raw.u32(2)]);
  const names = new Set(own.map((tensor) => tensor.name));
  const others = tinyLlama.tensors
    .filter((tensor) => !names.has(tensor.name) && !(experts > 0 && /ffn_(gate|up|down)\./.test(tensor.name)))
    .map((tensor) =>
      zeros(
        tensor.name,
        tensor.dims.map((size, i) => (size === 4 ? 4 : i === 0 || size === 32 ? width : size * 2)),
      ),
    );
  const path = join(folder, `${name}.gguf`);
  writeFileSync(path, ggufBytes({ metadata, tensors: [...others, ...own] }));
  return path;
}

/** A parameter's numbers, unpacked. */
async function numbersOf(path: string, module: string): Promise<Float32Array> {
  const { model, config } = await openWeights(path, await readConfig(path));
  const parameters = new Map(model.namedParameters());
  const [weight, scales, biases] = ["weight", "scales", "biases"].map((part) => parameters.get(`${module}.${part}`));
  const { bits, group_size: groupSize, mode } = (config.quantization ?? {}) as Record<string, never>;
  const numbers = mx.scope(() => {
    const plain = scales ? mx.dequantize(weight!, scales, biases, { bits, groupSize, mode }) : weight!;
    return plain.astype("float32").toArray() as Float32Array;
  });
  model.dispose();
  return numbers;
}

test("a factor of a matrix is in its numbers", async () => {
  const up = packed("blk.0.ffn_up.weight", [width, width]);
  const plain = await numbersOf(written("plain", [up]), "model.layers.0.mlp.up_proj");
  const path = written("scaled", [up, factors("blk.0.ffn_up.scale", [0.37]), factors("blk.0.ffn_up.input_scale", [2])]);
  const scaled = await numbersOf(path, "model.layers.0.mlp.up_proj");
  for (let group = 0; group < plain.length / 32; group++) {
    const [before, after] = [plain, scaled].map((all) => all.subarray(32 * group, 32 * group + 32));
    const largest = Math.max(...before!.map(Math.abs));
    for (const [i, value] of before!.entries()) {
      expect(Math.abs(after![i]! - 0.37 * value)).toBeLessThanOrEqual((0.37 * largest) / 120 + 1e-3 * largest);
    }
  }
});

test("a factor of numbers that are not packed too", async () => {
  const norm = { ...zeros("blk.0.ffn_up.weight", [width, width]) };
  norm.data = new Uint8Array(new Float32Array(width * width).fill(2).buffer);
  const path = written("floats", [norm, factors("blk.0.ffn_up.scale", [0.25])]);
  expect(new Set(await numbersOf(path, "model.layers.0.mlp.up_proj"))).toEqual(new Set([0.5]));
});

test("experts keep their form, and have a factor each", async () => {
  const values = [0.5, 1, 2, 4];
  const own = ["gate", "up", "down"].flatMap((part) => [
    packed(`blk.0.ffn_${part}_exps.weight`, [width, width, 4]),
    factors(`blk.0.ffn_${part}_exps.scale`, values),
    factors(`blk.0.ffn_${part}_exps.input_scale`, values),
  ]);
  const path = written("experts", [...own, zeros("blk.0.ffn_gate_inp.weight", [width, 4])], 4);
  const live = mx.liveHandles();
  const { model } = await loadModel(path);
  const found = model.namedParameters().filter(([name]) => name.endsWith("global_scale"));
  expect(found).toHaveLength(3);
  for (const [, scales] of found) {
    expect(scales.dtype).toBe("float32");
    expect([...(scales.toArray() as Float32Array)]).toEqual(values.map((value) => value * nvfp4Largest));
  }
  mx.scope(() => mx.eval([model.forward(mx.array([[0, 1]], "int32"))]));
  model.dispose();
  expect(mx.liveHandles()).toBe(live);
});

test.each([
  ["two of a matrix", [packed("blk.0.ffn_up.weight", [width, width]), factors("blk.0.ffn_up.scale", [1, 2])], 0],
  [
    "three of four experts",
    [packed("blk.0.ffn_up_exps.weight", [width, width, 4]), factors("blk.0.ffn_up_exps.scale", [1, 2, 3])],
    4,
  ],
])("factors that do not fit are refused: %s", async (name, own, experts) => {
  const path = written(name, own, experts);
  const error = await loadModel(path).catch((thrown) => thrown);
  expect(error).toBeInstanceOf(UserError);
  expect(error.message).toMatch(/scale of .* has \d factors, which mlxlm has no place for/);
});

test("a factor without its weight is a tensor without a place", async () => {
  const error = await loadModel(written("alone", [factors("blk.0.other.scale", [1])])).catch((thrown) => thrown);
  expect(error.message).toContain('has the tensor "blk.0.other.scale", which mlxlm has no place for');
});
