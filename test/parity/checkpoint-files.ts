/** Checkpoint folders whose tensors' bytes are formulas of their names; test/oracle/formats.py has the same formulas. */
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as mx from "../../src/mlx";
import { uniform, weight } from "./weights";

export type Source = Record<string, [kind: string, dtype: string, shape: number[]]>;

const sizes: Record<string, number> = { F32: 4, F16: 2, BF16: 2, F8_E4M3: 1, U8: 1, I32: 4, U32: 4 };
const floats = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;

const upTo = (limit: number) => (u: number) => Math.floor((u + 1) * limit);

const scales = (key: string, size: number) => uniform(key, size).map((u) => Math.floor((u + 3) * 16) / 2048);

/** The tensor's bytes. @param salt picks another draw */
function bytesOf(path: string, [kind, dtype, shape]: Source[string], salt?: number): Uint8Array {
  const name = salt === undefined ? path : `${salt}/${path}`;
  const size = shape.reduce((product, dim) => product * dim, 1);
  const bytes = size * sizes[dtype]!;
  const drawn = (count: number, limit: number, key = name) => Uint8Array.from(uniform(key, count), upTo(limit));
  const rounded = (values: Float32Array) =>
    mx.scope(() => {
      const tensor = mx.array(values, "float32").astype(floats[dtype as keyof typeof floats]);
      return Uint8Array.from(tensor.view("uint8").toArray() as Uint8Array);
    });
  switch (kind) {
    case "bits":
      return drawn(bytes, 128);
    case "fp8": {
      const signs = drawn(bytes, 128);
      return drawn(bytes, 44, `${name}/size`).map((value, i) => (signs[i]! & 0x80) | value);
    }
    case "fp8 scale":
      return drawn(size, 8).map((value) => 0x30 + value);
    case "exponent":
      return drawn(size, 2).map((value) => 121 + value);
    case "ternary": {
      const parts = drawn(size * 4, 1.5);
      return Uint8Array.from({ length: size }, (_, i) =>
        [0, 1, 2, 3].reduce((byte, place) => byte | (parts[4 * i + place]! << (2 * place)), 0),
      );
    }
    case "groups of 32":
      return new Uint8Array(Int32Array.from({ length: size }, (_, i) => Math.floor(i / 32)).buffer);
    case "scale":
      return rounded(scales(name, size));
    case "zero of 8":
      return rounded(scales(name.replace(/biases$/, "scales"), size).map((scale) => -8 * scale));
    default:
      return rounded(weight(path, shape, salt));
  }
}

/** Writes model.safetensors and config.json into a new folder. */
export function saveCheckpoint(folder: string, config: object, source: Source, salt?: number): string {
  const header: Record<string, object> = {};
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const [name, tensor] of Object.entries(source)) {
    const bytes = bytesOf(name, tensor, salt);
    header[name] = { dtype: tensor[1], shape: tensor[2], data_offsets: [at, at + bytes.length] };
    at += bytes.length;
    parts.push(bytes);
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(new BigUint64Array([BigInt(text.length)]).buffer);
  mkdirSync(folder);
  writeFileSync(join(folder, "model.safetensors"), Buffer.concat([length, text, ...parts]));
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  return folder;
}

/** A tensor as fixtures have it: dtype, shape, and the start of its bytes' SHA-256. */
export function hashed(x: mx.Tensor): [dtype: string, shape: number[], hash: string] {
  const bytes = mx.contiguous(x).view("uint8").toArray() as Uint8Array;
  return [x.dtype, [...x.shape], createHash("sha256").update(bytes).digest("hex").slice(0, 16)];
}
