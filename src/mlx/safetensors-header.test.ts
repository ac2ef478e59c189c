import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UserError } from "../errors";
import { readSafetensorsHeader } from "./safetensors-header";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-header-"));
afterAll(() => rmSync(folder, { recursive: true }));

let files = 0;

/** A file of a header (text, or an object to be written as JSON) and some data. */
function file(header: unknown, data = 0, claimed?: bigint): string {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  return fileOf(text, data, claimed);
}

function fileOf(header: Uint8Array, data = 0, claimed = BigInt(header.length)): string {
  const bytes = new Uint8Array(8 + header.length + data);
  new DataView(bytes.buffer).setBigUint64(0, claimed, true);
  bytes.set(header, 8);
  const path = join(folder, `${files++}.safetensors`);
  writeFileSync(path, bytes);
  return path;
}

const f32 = (shape: unknown, from: unknown, to: unknown) => ({ dtype: "F32", shape, data_offsets: [from, to] });

function raw(bytes: number[]): string {
  const path = join(folder, `${files++}.safetensors`);
  writeFileSync(path, new Uint8Array(bytes));
  return path;
}

describe("a sound header", () => {
  test("gives tensors and metadata", async () => {
    const header = {
      __metadata__: { format: "mlx" },
      b: f32([2, 3], 4, 28),
      a: f32([], 0, 4),
      empty: f32([0, 7], 28, 28),
    };
    const { tensors, metadata } = await readSafetensorsHeader(file(header, 28));
    expect([...tensors.keys()]).toEqual(["b", "a", "empty"]);
    expect(tensors.get("b")).toEqual({ dtype: "F32", shape: [2, 3], start: 4, end: 28 });
    expect([...metadata]).toEqual([["format", "mlx"]]);
  });

  test("may be padded with spaces, have no tensors, and names that are special in JavaScript", async () => {
    expect((await readSafetensorsHeader(file("{}     "))).tensors.size).toBe(0);
    const { tensors } = await readSafetensorsHeader(
      file('{"__proto__": {"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', 2),
    );
    expect([...tensors.keys()]).toEqual(["__proto__"]);
  });

  test("may have null for metadata, as MLX writes it", async () => {
    expect((await readSafetensorsHeader(file('{"__metadata__":null}'))).metadata.size).toBe(0);
  });

  test("of 100,000 tensors is read within seconds", async () => {
    const entries = Array.from({ length: 100_000 }, (_, i) => [`t${i}`, f32([1], 4 * i, 4 * i + 4)]);
    const { tensors } = await readSafetensorsHeader(file(Object.fromEntries(entries), 400_000));
    expect(tensors.size).toBe(100_000);
  }, 10_000);
});

const unsound: [name: string, make: () => string, message: RegExp][] = [
  ["an empty file", () => raw([]), /has 0 bytes/],
  ["seven bytes", () => raw([1, 2, 3, 4, 5, 6, 7]), /has 7 bytes/],
  ["an empty header", () => file("", 0), /does not begin with/],
  ["a header of 2^63 bytes", () => file("{}", 0, 1n << 63n), /claims 9223372036854775808 bytes/],
  ["a header just over the limit", () => file("{}", 0, 100_000_001n), /more than the 100000000/],
  ["a header longer than the file", () => file("{}", 0, 50n), /cut off/],
  ["a header that is not UTF-8", () => fileOf(new Uint8Array([0x7b, 0xff, 0xfe, 0x7d])), /not UTF-8/],
  ["a header that is not JSON", () => file("{nonsense"), /not JSON/],
  ["a list at the top", () => file("[]"), /does not begin with/],
  ["a leading space", () => file(" {}"), /does not begin with/],
  ["text after the object", () => file("{} x"), /more after its end/],
  ["a key twice", () => file('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'), /occurs twice/],
  ["a field twice", () => file('{"a":{"dtype":"U8","dtype":"F32","shape":[0],"data_offsets":[0,0]}}'), /occurs twice/],
  ["a text that does not end", () => file('{"a'), /does not end/],
  ["deep nesting", () => file(`{"a":${"[".repeat(100_000)}`), /nests deeper/],
  ["an unknown dtype", () => file({ a: { dtype: "F31", shape: [1], data_offsets: [0, 4] } }, 4), /unknown dtype/],
  ["a dtype that is a number", () => file({ a: { dtype: 3, shape: [1], data_offsets: [0, 4] } }, 4), /unknown dtype/],
  [
    "a dtype that every object has",
    () => file({ a: { dtype: "constructor", shape: [1], data_offsets: [0, 4] } }, 4),
    /unknown dtype/,
  ],
  ["no shape", () => file({ a: { dtype: "F32", data_offsets: [0, 4] } }, 4), /no proper shape/],
  ["a negative size", () => file({ a: f32([-1], 0, 4) }, 4), /no proper shape/],
  ["a fraction of a size", () => file({ a: f32([0.5], 0, 2) }, 2), /no proper shape/],
  ["a size as text", () => file({ a: f32(["1"], 0, 4) }, 4), /no proper shape/],
  ["a huge size", () => file({ a: f32([2 ** 40], 0, 4) }, 4), /too large/],
  ["a product over 2^53", () => file({ a: f32([2 ** 30, 2 ** 30], 0, 4) }, 4), /too large/],
  [
    "a product that wraps to the right size",
    () => file({ a: f32([2 ** 31 - 1, 2 ** 31 - 1, 4], 0, 16) }, 16),
    /too large/,
  ],
  ["no offsets", () => file({ a: { dtype: "F32", shape: [1] } }, 4), /data_offsets/],
  ["one offset", () => file({ a: { dtype: "F32", shape: [1], data_offsets: [0] } }, 4), /data_offsets/],
  ["three offsets", () => file({ a: { dtype: "F32", shape: [1], data_offsets: [0, 4, 8] } }, 8), /data_offsets/],
  ["a negative offset", () => file({ a: f32([1], -4, 0) }, 4), /data_offsets/],
  [
    "an offset over 2^53",
    () => file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[9007199254740993,9007199254740994]}}'),
    /data_offsets/,
  ],
  ["offsets swapped", () => file({ a: f32([1], 4, 0) }, 4), /before it starts/],
  ["a size that does not fit the shape", () => file({ a: f32([3], 0, 8) }, 8), /needs 12/],
  ["an overlap", () => file({ a: f32([2], 0, 8), b: f32([1], 4, 8) }, 8), /overlaps/],
  ["two tensors at one place", () => file({ a: f32([1], 0, 4), b: f32([1], 0, 4) }, 4), /overlaps/],
  ["a hole at the start", () => file({ a: f32([1], 4, 8) }, 8), /hole of 4 bytes/],
  ["a hole in the middle", () => file({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12), /hole of 4 bytes/],
  ["data that is cut off", () => file({ a: f32([4], 0, 16) }, 12), /cut off/],
  ["bytes behind the last tensor", () => file({ a: f32([1], 0, 4) }, 5), /follow its last tensor/],
  ["metadata that is no object", () => file({ __metadata__: [] }), /metadata is not an object/],
  ["metadata that is no text", () => file({ __metadata__: { a: 1 } }), /"a" is not a text/],
  ["a tensor that is a number", () => file({ a: 5 }), /not described by an object/],
  ["a NUL in a name", () => file({ "a\0b": f32([1], 0, 4) }, 4), /NUL/],
];

describe("an unsound header is refused", () => {
  test.each(unsound)("%s", async (_, make, message) => {
    const error = await readSafetensorsHeader(make()).then(
      () => null,
      (thrown) => thrown,
    );
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toMatch(message);
  });

  test("5,000 mutated headers are read or refused, never a crash or a stall", async () => {
    const sound = new TextEncoder().encode(
      JSON.stringify({ __metadata__: { k: "v" }, a: f32([2, 2], 0, 16), b: f32([1], 16, 20) }),
    );
    let state = 12345;
    const random = (limit: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state % limit;
    };
    let refused = 0;
    let slowest = 0;
    for (let n = 0; n < 5000; n++) {
      const bytes = sound.slice();
      for (let k = 0; k <= random(4); k++) bytes[random(bytes.length)] = random(256);
      const path = fileOf(bytes.slice(0, random(10) === 0 ? random(bytes.length) : bytes.length), 20);
      const began = performance.now();
      await readSafetensorsHeader(path).catch((error) => {
        expect(error).toBeInstanceOf(UserError);
        refused += 1;
      });
      slowest = Math.max(slowest, performance.now() - began);
      rmSync(path);
    }
    expect(refused).toBeGreaterThan(2500);
    expect(slowest).toBeLessThan(5000);
  }, 60_000);
});
