import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from ".";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-files-"));
afterAll(() => rmSync(folder, { recursive: true }));

const dtypes: mx.Dtype[] = [
  "bool",
  "uint8",
  "int8",
  "uint16",
  "int16",
  "uint32",
  "int32",
  "uint64",
  "int64",
  "float16",
  "bfloat16",
  "float32",
];

describe("safetensors", () => {
  test("keep every dtype, name and metadata", () => {
    const path = join(folder, "all.safetensors");
    mx.scope(() => {
      const arrays = new Map(dtypes.map((dtype) => [`weights.${dtype}`, mx.array([0, 1, 1, 0], dtype, [2, 2])]));
      arrays.set("ünï·cödé", mx.array(7));
      mx.saveSafetensors(path, arrays, { format: "mlx", "a key": "a = value" });
      const back = mx.loadSafetensors(path);
      expect(back.metadata).toEqual(Object.assign(Object.create(null), { format: "mlx", "a key": "a = value" }));
      expect([...back.arrays.keys()].sort()).toEqual([...arrays.keys()].sort());
      for (const [name, tensor] of back.arrays) {
        expect([name, tensor.dtype, tensor.toList()]).toEqual([
          name,
          arrays.get(name)!.dtype,
          arrays.get(name)!.toList(),
        ]);
      }
    });
  });

  test("may be empty", () => {
    const path = join(folder, "none.safetensors");
    mx.saveSafetensors(path, new Map());
    expect(mx.loadSafetensors(path).arrays.size).toBe(0);
  });

  test("loading and saving leave nothing behind", () => {
    const path = join(folder, "leak.safetensors");
    const before = mx.liveHandles();
    for (let i = 0; i < 50; i++) {
      mx.scope(() => {
        mx.saveSafetensors(path, new Map([["x", mx.ones([16])]]));
        mx.eval(mx.loadSafetensors(path).arrays);
      });
    }
    expect(mx.liveHandles()).toBe(before);
  });
});

test("GGUF keeps tensors and metadata of each kind", () => {
  const path = join(folder, "model.gguf");
  mx.scope(() => {
    const metadata = new Map<string, string | string[] | mx.Tensor>([
      ["general.architecture", "llama"],
      ["tokenizer.ggml.tokens", ["a", "ü", "<s>"]],
      ["llama.block_count", mx.array(3, "uint32")],
      ["llama.scores", mx.array([0.5, -1], "float32")],
    ]);
    mx.saveGguf(
      path,
      new Map([["blk.0.weight", mx.arange(6, undefined, 1, { dtype: "float32" }).reshape(2, 3)]]),
      metadata,
    );
    const back = mx.loadGguf(path);
    expect(back.arrays.get("blk.0.weight")!.toList()).toEqual([
      [0, 1, 2],
      [3, 4, 5],
    ]);
    expect(back.metadata.get("general.architecture")).toBe("llama");
    expect(back.metadata.get("tokenizer.ggml.tokens")).toEqual(["a", "ü", "<s>"]);
    expect((back.metadata.get("llama.block_count") as mx.Tensor).item()).toBe(3);
    expect((back.metadata.get("llama.scores") as mx.Tensor).toList()).toEqual([0.5, -1]);
  });
});

test("npy", () => {
  const path = join(folder, "x.npy");
  mx.saveNpy(
    path,
    mx.array([
      [1, 2],
      [3, 4],
    ]),
  );
  expect((mx.load(path) as mx.Tensor).toList()).toEqual([
    [1, 2],
    [3, 4],
  ]);
});
