/** What is written is read back by MLX's own reader and by ours. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from "../../mlx";
import type { GgufField } from "../../models";
import { readGgufHeader } from "./header";
import { GgufData } from "./tensors";
import type { WrittenType } from "./types";
import { type WrittenTensor, writeGguf } from "./write";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-gguf-write-"));
afterAll(() => rmSync(folder, { recursive: true }));
const path = join(folder, "model.gguf");

// The generator keeps one key for good.
mx.random.seed(1);
mx.eval(mx.random.state.get());

const metadata = new Map<string, GgufField>([
  ["general.architecture", ["string", "llama"]],
  ["general.name", ["string", "Ünïcode 🦊"]],
  ["llama.block_count", ["uint32", 4_000_000_000]],
  ["a.negative", ["int32", -7]],
  ["a.number", ["float32", 0.5]],
  ["a.truth", ["bool", true]],
  ["a.list.of.texts", ["string", ["", "▁a", "\n"]]],
  ["a.list.of.numbers", ["float32", [-1000, 0.25]]],
  ["a.list.of.integers", ["int32", [1, -2, 3]]],
  ["a.list.of.large.numbers", ["uint64", [1, 2 ** 40 + 1, 2n ** 63n]]],
  ["an.empty.list", ["uint32", []]],
]);

const shapes: Record<string, [shape: number[], type: WrittenType]> = {
  "token_embd.weight": [[5, 64], "F16"],
  "norm.weight": [[7], "F32"],
  "blk.0.attn_q.weight": [[3, 96], "Q8_0"],
  "blk.0.ffn_gate_exps.weight": [[2, 3, 32], "Q8_0"],
};

/** Tensors of the shapes, lazily made, and their values. */
function tensors(): [Map<string, WrittenTensor>, Map<string, Float32Array>] {
  const values = new Map<string, Float32Array>();
  const made = new Map<string, WrittenTensor>();
  mx.scope(() => {
    for (const [name, [shape, type]] of Object.entries(shapes)) {
      const whole = mx.random.normal({ shape: [2, ...shape] });
      // Not from the start of its buffer, and not of the type that is written.
      const tensor = mx.keep(whole.at(1).astype(name === "norm.weight" ? "bfloat16" : "float32"));
      made.set(name, { tensor, type });
      values.set(name, tensor.astype("float32").toArray() as Float32Array);
    }
  });
  return [made, values];
}

test("MLX's reader and ours find what was written", async () => {
  const live = mx.liveHandles();
  const [made, values] = tensors();
  const seen: number[] = [];
  await writeGguf(path, metadata, made, { onProgress: (done, total) => seen.push(done / total) });
  expect(mx.liveHandles()).toBe(live);
  expect(seen.at(-1)).toBeGreaterThan(0.98);
  expect(seen).toEqual(seen.toSorted((a, b) => a - b));
  expect(readFileSync(path).length % 32).toBe(0);

  const header = await readGgufHeader(path);
  expect([...header.metadata]).toEqual([...metadata].map(([key, [, value]]) => [key, value as never]));
  expect([...header.tensors].map(([name, { shape, type }]) => [name, shape, type.name])).toEqual(
    Object.entries(shapes).map(([name, [shape, type]]) => [name, shape, type]),
  );

  mx.scope(() => {
    const theirs = mx.loadGguf(path);
    expect(theirs.metadata.get("general.name")).toBe("Ünïcode 🦊");
    expect(theirs.metadata.get("a.list.of.texts")).toEqual(["", "▁a", "\n"]);
    const numbers = (key: string) => (theirs.metadata.get(key) as mx.Tensor).toList();
    expect([numbers("llama.block_count"), numbers("a.negative"), numbers("a.list.of.numbers")]).toEqual([
      4_000_000_000,
      -7,
      [-1000, 0.25],
    ]);
    const data = new GgufData();
    for (const [name, [shape, type]] of Object.entries(shapes)) {
      const ours = data.read(header.tensors.get(name)!);
      const stem = name.replace(/\.weight$/, "");
      const of = (part: string) => theirs.arrays.get(`${stem}.${part}`)!;
      expect([name, ours.weight.toList()]).toEqual([name, of("weight").toList()]);
      const expected = values.get(name)!;
      if (type !== "Q8_0") {
        const wanted = mx.array(expected).astype(type === "F16" ? "float16" : "float32");
        expect(ours.weight.shape).toEqual(shape);
        expect(ours.weight.flatten().toList()).toEqual(wanted.toList());
        continue;
      }
      expect(ours.scales!.toList()).toEqual(of("scales").toList());
      expect(ours.biases!.toList()).toEqual(of("biases").toList());
      const back = mx.dequantize(ours.weight, ours.scales!, ours.biases!, { groupSize: 32, bits: 8 });
      const worst = back.astype("float32").flatten().subtract(mx.array(expected)).abs().max().item() as number;
      // Half a step of the largest block: 127 steps make up some four standard deviations.
      expect(worst).toBeLessThan(4 / 127 / 1.5);
      expect(worst).toBeGreaterThan(0.001);
    }
    data.close();
  });
  expect(mx.liveHandles()).toBe(live);
});

test("steps of a block are llama.cpp's: halves away from zero, zeros stay", async () => {
  const values = [127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49, -127, ...new Array<number>(23).fill(3)];
  const tensor = mx.keep(mx.array([...values, ...new Array<number>(32).fill(0)], "float32", [2, 32]));
  await writeGguf(path, new Map(), new Map([["x", { tensor, type: "Q8_0" }]]));
  const { start } = (await readGgufHeader(path)).tensors.get("x")!;
  const bytes = readFileSync(path);
  expect([...new Int8Array(bytes.buffer, bytes.byteOffset + start + 2, 9)]).toEqual([
    127, 1, 2, 3, -1, -2, -3, 0, -127,
  ]);
  expect(bytes.readUInt16LE(start)).toBe(0x3c00);
  expect(new Uint8Array(bytes.subarray(start + 34, start + 68)).every((byte) => byte === 0)).toBe(true);
});

test("what cannot be written leaves what was there, and no tensor", async () => {
  const live = mx.liveHandles();
  writeFileSync(path, "what was there");
  const controller = new AbortController();
  const { signal } = controller;
  const stops = writeGguf(path, metadata, tensors()[0], { onProgress: () => controller.abort(), signal });
  await expect(stops).rejects.toThrow("was not saved");
  await expect(writeGguf(join(folder, "none", "x.gguf"), metadata, tensors()[0])).rejects.toThrow("there is no folder");
  const odd = new Map([["x", { tensor: mx.keep(mx.ones([2, 33])), type: "Q8_0" as const }]]);
  await expect(writeGguf(path, metadata, odd)).rejects.toThrow("x cannot be Q8_0");
  expect(mx.liveHandles()).toBe(live);
  expect(readFileSync(path, "utf8")).toBe("what was there");
  expect(readdirSync(folder)).toEqual(["model.gguf"]);
});
