/**
 * How fast tensors come from safetensors files to the device, beside MLX's own reading (of .npy files with the same bytes),
 * and what a rank of two reads of them. Shapes are those of Qwen3 8B in 4 bits. Checks that the tensors are equal.
 *
 *   bun bench/loading.ts [--layers 8] [--runs 5] [--cold] [--folder /tmp/loading]
 *
 * 36 layers are 4.0 GB, twice on the disk. With --cold files are dropped from the page cache before each run.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as mx from "../src/mlx";
import { median } from "./median";

const { values } = parseArgs({
  options: {
    layers: { type: "string", default: "8" },
    runs: { type: "string", default: "5" },
    cold: { type: "boolean", default: false },
    folder: { type: "string", default: "/tmp/mlxlm-loading" },
  },
});
const { folder } = values;
const layers = Array.from({ length: Number(values.layers) }, (_, i) => `${i}`);

/** Outputs and inputs of a layer's matrices. Ranks divide the inputs of the last two. */
const matrices = {
  q_proj: [4096, 4096],
  k_proj: [1024, 4096],
  v_proj: [1024, 4096],
  gate_proj: [12288, 4096],
  up_proj: [12288, 4096],
  o_proj: [4096, 4096],
  down_proj: [4096, 12288],
} as const;
const byInputs = ["o_proj", "down_proj"];

function layerOf(seed: number): Map<string, mx.Tensor> {
  const numbers = (rows: number, columns: number, dtype: mx.Dtype) =>
    mx
      .arange(seed, seed + rows * columns, 1, { dtype: "uint32" })
      .astype(dtype)
      .reshape(rows, columns);
  const tensors = new Map([["norm", numbers(1, 4096, "uint16")]]);
  for (const [name, [outputs, inputs]] of Object.entries(matrices)) {
    tensors.set(`${name}.weight`, numbers(outputs, inputs / 8, "uint32"));
    for (const part of ["scales", "biases"]) tensors.set(`${name}.${part}`, numbers(outputs, inputs / 64, "uint16"));
  }
  return tensors;
}

const file = (layer: string) => join(folder, `${layer}.safetensors`);
const copies = (layer: string) => join(folder, layer);

function write(): void {
  rmSync(folder, { recursive: true, force: true });
  for (const layer of layers) {
    mkdirSync(copies(layer), { recursive: true });
    mx.scope(() => {
      const tensors = layerOf(Number(layer));
      mx.saveSafetensors(file(layer), tensors);
      for (const [name, tensor] of tensors) mx.saveNpy(join(copies(layer), `${name}.npy`), tensor);
    });
  }
}

type Layer = Map<string, mx.Tensor>;

const loadOurs = (layer: string): Layer => mx.loadSafetensors(file(layer)).arrays;
const loadMlx = (layer: string): Layer =>
  new Map(
    readdirSync(copies(layer)).map((name) => [name.slice(0, -".npy".length), mx.loadNpy(join(copies(layer), name))]),
  );

/** The first half of what a rank of two keeps. */
const part = (layer: Layer): Layer =>
  new Map(
    [...layer].map(([name, x]) => {
      if (name === "norm") return [name, x];
      const axis = byInputs.some((one) => name.startsWith(one)) ? 1 : 0;
      return [name, mx.contiguous(mx.sliceAxis(x, axis, 0, x.dim(axis) / 2))];
    }),
  );

const ways: Record<string, (layer: string) => Layer> = {
  "safetensors, ours": loadOurs,
  "npy, MLX's": loadMlx,
  "half of safetensors, ours": (layer) => part(loadOurs(layer)),
  "half of npy, MLX's": (layer) => part(loadMlx(layer)),
};

/** Bytes that this process has read so far; null where the system does not count them. */
function bytesRead(): number | null {
  if (!existsSync("/proc/self/io")) return null;
  return Number(/rchar: (\d+)/.exec(readFileSync("/proc/self/io", "utf8"))?.[1]);
}

function dropFromCache(): void {
  for (const layer of layers) {
    for (const path of [file(layer), ...readdirSync(copies(layer)).map((name) => join(copies(layer), name))]) {
      Bun.spawnSync(["dd", `of=${path}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]);
    }
  }
}

interface Run {
  ms: number;
  bytes: number;
  read: number | null;
}

function run(load: (layer: string) => Layer): Run {
  mx.clearCache();
  if (values.cold) dropFromCache();
  const before = bytesRead();
  const began = performance.now();
  return mx.scope(() => {
    const tensors = layers.flatMap((layer) => [...load(layer).values()]);
    mx.eval(tensors);
    mx.synchronize();
    const ms = performance.now() - began;
    const after = bytesRead();
    const bytes = tensors.reduce((sum, x) => sum + x.nbytes, 0);
    return { ms, bytes, read: before === null || after === null ? null : after - before };
  });
}

function check(layer: string): void {
  mx.scope(() => {
    const [ours, theirs] = [loadOurs(layer), loadMlx(layer)];
    for (const [a, b] of [
      [part(ours), part(theirs)],
      [ours, theirs],
    ] as const) {
      for (const [name, x] of a) {
        if (mx.arrayEqual(x, b.get(name)!).item() !== 1) throw new Error(`${layer}: ${name} is not what MLX reads`);
      }
    }
  });
}

write();
for (const layer of layers) check(layer);
console.log(`${mx.defaultDevice()}, ${layers.length} layers, all tensors equal${values.cold ? ", cold files" : ""}`);
const runs: Record<string, Run[]> = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
for (let i = 0; i <= Number(values.runs); i++) {
  for (const [name, load] of Object.entries(ways)) {
    const one = run(load);
    // The first round fills caches.
    if (i > 0) runs[name]!.push(one);
  }
}
for (const [name, all] of Object.entries(runs)) {
  const ms = median(all.map((one) => one.ms));
  const { bytes, read } = all[0]!;
  const amount = read === null ? "" : `, ${(read / 1e9).toFixed(2)} GB read`;
  const each = all.map((one) => one.ms.toFixed(0)).join(" ");
  console.log(
    `${name.padEnd(26)} ${ms.toFixed(0)} ms, ${(bytes / 1e6 / ms).toFixed(1)} GB/s of ${(bytes / 1e9).toFixed(2)} GB${amount}  (${each})`,
  );
}
rmSync(folder, { recursive: true });
