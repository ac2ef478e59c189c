/** Numbers packed as blocks come back within the steps of their types; which tensor takes which is llama.cpp's recipe. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from "../../mlx";
import { exportTypes, writtenTypeOf } from "./export-types";
import { readGgufHeader } from "./header";
import { GgufData } from "./tensors";
import type { WrittenType } from "./types";
import { writeGguf } from "./write";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-gguf-pack-"));
afterAll(() => rmSync(folder, { recursive: true }));

// The generator keeps one key for good.
mx.random.seed(3);
mx.eval(mx.random.state.get());

async function back(values: mx.Tensor, type: WrittenType): Promise<Float32Array> {
  const path = join(folder, `${type}.gguf`);
  await writeGguf(path, new Map(), new Map([["x", { tensor: mx.keep(values), type }]]));
  const header = await readGgufHeader(path);
  const data = new GgufData();
  try {
    return mx.scope(() => data.readPlain(header.tensors.get("x")!).astype("float32").toArray() as Float32Array);
  } finally {
    data.close();
  }
}

/** Size of the error beside that of normal numbers, at most: what ggml's own quantizer makes of them, and a tenth more. */
const errors: [type: WrittenType, error: number][] = [
  ["Q4_0", 0.095],
  ["Q5_0", 0.047],
  ["Q5_1", 0.042],
  ["Q8_0", 0.006],
  ["Q4_K", 0.079],
  ["Q5_K", 0.04],
  ["Q6_K", 0.0196],
];

describe("normal numbers", () => {
  test.each(errors)("%s", async (type, most) => {
    const live = mx.liveHandles();
    const values = mx.scope(() => mx.random.normal({ shape: [8, 512] }));
    const wanted = values.toArray() as Float32Array;
    const got = await back(values, type);
    expect(mx.liveHandles()).toBe(live);
    const error = Math.hypot(...got.map((value, i) => value - wanted[i]!)) / Math.hypot(...wanted);
    expect(error).toBeLessThan(most);
    expect(error).toBeGreaterThan(most / 3);
  });
});

test.each(errors)("zeros stay zeros, and one number what it is within a step: %s", async (type) => {
  const values = new Float32Array(512);
  values[300] = -3;
  const got = await back(mx.array(values, "float32", [1, 512]), type);
  expect(got.filter((value, i) => i !== 300 && Math.abs(value) > 0.13)).toEqual(new Float32Array(0));
  expect(got.slice(0, 256).every((value) => value === 0)).toBe(true);
  expect(got[300]).toBeCloseTo(-3, 1);
});

describe("what a tensor becomes", () => {
  const facts = { layers: 16, experts: 0, isTied: false };
  const types = (name: string, shape = [512, 512]) =>
    exportTypes.map((type) => writtenTypeOf(name, shape, type, facts));

  test("vectors, norms, gates of experts and convolutions stay in float32", () => {
    const all = exportTypes.map(() => "F32");
    expect(types("blk.0.attn_norm.weight", [512])).toEqual(all as never);
    for (const name of [
      "blk.0.ffn_gate_inp.weight",
      "blk.0.ssm_conv1d.weight",
      "blk.0.ssm_norm.weight",
      "blk.0.ssm_a",
    ]) {
      expect(types(name)).toEqual(all as never);
    }
  });

  test("heads and some layers have more bits", () => {
    const mixed = (name: string, own: Partial<typeof facts> = {}, shape = [512, 512]) =>
      writtenTypeOf(name, shape, "Q4_K_M", { ...facts, ...own });
    expect(types("output.weight")).toEqual(["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q6_K", "Q6_K"]);
    expect([mixed("token_embd.weight"), mixed("token_embd.weight", { isTied: true })]).toEqual(["Q4_K", "Q6_K"]);
    const layers = Array.from({ length: 16 }, (_, i) => mixed(`blk.${i}.attn_v.weight`) === "Q6_K");
    // The first and the last two of sixteen, and every third between.
    expect(layers.flatMap((more, i) => (more ? [i] : []))).toEqual([0, 1, 4, 7, 10, 13, 14, 15]);
    expect([mixed("blk.0.ffn_down_exps.weight"), mixed("blk.2.ffn_down.weight")]).toEqual(["Q6_K", "Q4_K"]);
    expect(mixed("blk.2.attn_qkv.weight")).toBe("Q5_K");
    expect(mixed("blk.2.attn_v.weight", { experts: 8 })).toBe("Q8_0");
  });

  test("rows that are no whole blocks take smaller ones, or none", () => {
    expect(types("blk.3.attn_q.weight", [512, 96])).toEqual(["F32", "F16", "BF16", "Q8_0", "Q8_0", "Q5_0", "Q4_0"]);
    expect(types("blk.3.attn_q.weight", [512, 80])).toEqual(["F32", "F16", "BF16", "F16", "F16", "F16", "F16"]);
  });
});
