/** Tensors that are still in their files: what is read of them, and that slices are those of what MLX reads. */
import { afterAll, describe, expect, test } from "bun:test";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import * as mx from ".";

countExactBytes();

const folder = mkdtempSync(join(tmpdir(), "mlxlm-file-tensors-"));
afterAll(() => rmSync(folder, { recursive: true }));

const counting = (shape: readonly number[], dtype: mx.Dtype) =>
  mx
    .arange(shape.reduce((a, b) => a * b, 1))
    .reshape([...shape])
    .astype(dtype);

/** Saves the tensors and opens them again, unread. */
function inFile(name: string, tensors: Record<string, mx.Tensor>): Record<string, mx.Tensor> {
  const path = join(folder, name);
  mx.saveSafetensors(path, new Map(Object.entries(tensors)));
  return Object.fromEntries(mx.loadSafetensors(path).arrays);
}

const bytesOf = (x: mx.Tensor) => {
  const whole = mx.contiguous(x).toArray() as unknown as Uint8Array;
  return Buffer.from(whole.buffer, whole.byteOffset, whole.byteLength).toString("hex");
};

/** What this process reads while it does something. */
function bytesRead(work: () => void): number {
  const count = () => Number(/rchar: (\d+)/.exec(readFileSync("/proc/self/io", "utf8"))![1]);
  const before = count();
  work();
  return count() - before;
}

const dtypes: mx.Dtype[] = [
  ...(["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"] as const),
  ...(["float16", "bfloat16", "float32", "complex64"] as const),
];

type Range = [from: number, to: number];
const cut = (x: mx.Tensor, ranges: readonly Range[]) => x.at(...ranges.map(([from, to]) => mx.slice(from, to)));

describe("slices", () => {
  test.each(dtypes)("of %s: rows, columns, the middle, a slice of a slice", (dtype) => {
    mx.scope(() => {
      const x = counting([6, 8, 10], dtype);
      const { x: unread } = inFile(`${dtype}.safetensors`, { x });
      const parts = (x: mx.Tensor) => [
        mx.sliceAxis(x, 0, 2, 5),
        mx.sliceAxis(x, 1, 3, 4),
        mx.sliceAxis(x, -1, 1, 9),
        mx.sliceAxis(mx.sliceAxis(mx.sliceAxis(x, 2, 2, 8), 0, 1, 6), 2, 1, 3),
        x,
      ];
      expect(parts(unread!).map(bytesOf)).toEqual(parts(x).map(bytesOf));
      for (const part of parts(unread!)) expect(part.dtype).toBe(dtype);
    });
  });

  test("of every form, one in another", () => {
    const axis = fc.integer({ min: 1, max: 9 });
    const shapes = fc.array(axis, { minLength: 1, maxLength: 4 }).chain((shape) => {
      const range = (size: number) =>
        fc.tuple(fc.nat(size), fc.nat(size)).map(([a, b]): Range => [Math.min(a, b), Math.max(a, b)]);
      return fc.tuple(fc.constant(shape), fc.tuple(...shape.map(range))).chain(([shape, first]) =>
        fc.record({
          shape: fc.constant(shape),
          first: fc.constant(first),
          second: fc.tuple(...first.map(([from, to]) => range(to - from))),
        }),
      );
    });
    fc.assert(
      fc.property(shapes, ({ shape, first, second }) => {
        mx.scope(() => {
          const x = counting(shape, "uint16");
          const { x: unread } = inFile("form.safetensors", { x });
          const [ours, expected] = [cut(cut(unread!, first), second), cut(cut(x, first), second)];
          expect(ours.shape).toEqual(expected.shape);
          expect(bytesOf(ours)).toBe(bytesOf(expected));
        });
      }),
    );
  });

  test("longer than what is read at once", () => {
    mx.scope(() => {
      const x = mx.arange(9_000_000);
      const { x: unread } = inFile("long.safetensors", { x });
      expect(mx.arrayEqual(unread!, x).item()).toBe(1);
    });
  });

  test("far apart and close together", () => {
    mx.scope(() => {
      const x = counting([32, 32, 1024], "uint32");
      const { x: unread } = inFile("large.safetensors", { x });
      const parts = (x: mx.Tensor) => [
        x,
        mx.sliceAxis(x, 2, 100, 1000),
        mx.sliceAxis(x, 2, 1000, 1003),
        mx.sliceAxis(x, 1, 5, 30),
        cut(x, [
          [1, 31],
          [3, 30],
          [256, 768],
        ]),
      ];
      for (const [i, part] of parts(unread!).entries()) {
        expect(mx.arrayEqual(part, parts(x)[i]!).item()).toBe(1);
      }
    });
  });

  test("with steps, backwards, beyond the end, and by an index", () => {
    mx.scope(() => {
      const x = counting([7, 9], "int32");
      const { x: unread } = inFile("steps.safetensors", { x });
      const parts = (x: mx.Tensor) => [
        x.at(mx.slice(undefined, undefined, 2)),
        x.at(mx.slice(undefined, undefined, -1)),
        x.at(mx.slice(3, 100)),
        x.at(mx.slice(-3)),
        x.at(4),
        x.at(mx.ellipsis, 4),
        x.at(mx.slice(2, 5), mx.array([1, 1, 0])),
      ];
      expect(parts(unread!).map((part) => part.toList())).toEqual(parts(x).map((part) => part.toList()));
    });
  });

  test("that divide a tensor", () => {
    mx.scope(() => {
      const x = counting([6, 8], "int32");
      const { x: unread } = inFile("divided.safetensors", { x });
      const parts = (x: mx.Tensor) => [
        ...x.split(2),
        ...x.split(4, -1),
        ...x.split([1, 5], 0),
        ...x.split([3, 3], 1),
        ...x.split([], 1),
        ...x.swapaxes(0, 1).split(2, 0),
      ];
      expect(parts(unread!).map((part) => part.toList())).toEqual(parts(x).map((part) => part.toList()));
      expect(() => unread!.split(5)).toThrow();
      expect(() => unread!.split(2, 2)).toThrow();
    });
  });

  test("of tensors that are joined, stacked, turned or cast first", () => {
    mx.scope(() => {
      const tensors = Object.fromEntries(["a", "b", "c"].map((name, i) => [name, counting([4, 6], "int32").add(i)]));
      const { a, b, c } = inFile("joined.safetensors", tensors);
      const unread = [a!, b!, c!];
      const read = ["a", "b", "c"].map((name) => tensors[name]!);
      const parts = (xs: readonly mx.Tensor[]) => [
        mx.sliceAxis(mx.stack(xs), 1, 1, 3),
        mx.sliceAxis(mx.stack(xs), 0, 1, 2),
        mx.sliceAxis(mx.stack(xs, { axis: -1 }), 2, 1, 3),
        mx.sliceAxis(mx.sliceAxis(mx.stack(xs), 2, 2, 5), 1, 0, 1),
        mx.sliceAxis(mx.concatenate(xs, { axis: 0 }), 0, 3, 9),
        mx.sliceAxis(mx.concatenate(xs, { axis: 1 }), 1, 6, 12),
        mx.sliceAxis(mx.concatenate(xs, { axis: 1 }), 0, 1, 2),
        mx.sliceAxis(mx.concatenate(xs, { axis: 1 }), 1, 7, 7),
        mx.sliceAxis(mx.stack(xs).swapaxes(1, 2), 1, 2, 4),
        mx.sliceAxis(mx.stack(xs).moveaxis(0, 2), 2, 1, 3),
        mx.sliceAxis(mx.stack(xs).astype("float32"), 2, 0, 3),
        mx.sliceAxis(mx.stack([unread[0]!, read[1]!]), 1, 1, 3),
      ];
      expect(parts(unread).map((part) => part.toList())).toEqual(parts(read).map((part) => part.toList()));
    });
  });
});

test("scalars and tensors without elements", () => {
  mx.scope(() => {
    const tensors = { one: mx.array(7, "int32"), none: mx.zeros([0, 3]), flat: mx.zeros([3, 0], "uint8") };
    const { one, none, flat } = inFile("small.safetensors", tensors);
    expect(one!.item()).toBe(7);
    expect([none!.shape, none!.dtype, flat!.shape, flat!.dtype]).toEqual([[0, 3], "float32", [3, 0], "uint8"]);
    expect(mx.sliceAxis(none!, 1, 1, 2).shape).toEqual([0, 1]);
    mx.eval([none, flat]);
  });
});

test("8-bit floats are read as bytes", () => {
  const header = JSON.stringify({ x: { dtype: "F8_E4M3", shape: [2, 3], data_offsets: [0, 6] } });
  const length = new BigUint64Array([BigInt(header.length)]);
  const path = join(folder, "fp8.safetensors");
  writeFileSync(
    path,
    Buffer.concat([Buffer.from(length.buffer), Buffer.from(header), Buffer.from([1, 2, 3, 4, 5, 6])]),
  );
  mx.scope(() => {
    const x = mx.loadSafetensors(path).arrays.get("x")!;
    expect(x.dtype).toBe("uint8");
    expect(mx.sliceAxis(x, 1, 1, 3).toList()).toEqual([
      [2, 3],
      [5, 6],
    ]);
  });
});

test("names with escapes are found", () => {
  mx.scope(() => {
    const names = ['"quoted"', "back\\slash", "ünï·cödé 𝛼", "tab\tand\nline"];
    const loaded = inFile("names.safetensors", Object.fromEntries(names.map((name, i) => [name, mx.array([i, i])])));
    expect(names.map((name) => mx.sliceAxis(loaded[name]!, 0, 1, 2).item())).toEqual([0, 1, 2, 3]);
  });
});

test("two files are read side by side, also ahead of their use, and after they were renamed", () => {
  mx.scope(() => {
    const sizes = Array.from({ length: 24 }, (_, i) => 1 + i ** 4);
    const all = ["one", "two"].map((name, file) => {
      const tensors = Object.fromEntries(sizes.map((size, i) => [`${i}`, mx.full([size], file * 100 + i, "uint8")]));
      const loaded = inFile(`${name}.safetensors`, tensors);
      renameSync(join(folder, `${name}.safetensors`), join(folder, `${name}.moved`));
      return Object.entries(loaded);
    });
    mx.asyncEval(all.flat().map(([, x]) => x));
    for (const [file, tensors] of all.entries()) {
      for (const [i, x] of tensors) {
        expect(x.max().item()).toBe(file * 100 + Number(i));
        expect(x.min().item()).toBe(file * 100 + Number(i));
      }
    }
  });
});

describe("of a file that was cut since it was opened", () => {
  const path = join(folder, "cut.safetensors");

  test("what is gone is an error, once for each time it is read; what is there is not", () => {
    mx.scope(() => {
      const { x } = inFile("cut.safetensors", { x: counting([1000, 1000], "float32") });
      const [head, tail, rest] = [
        mx.sliceAxis(x!, 0, 0, 10),
        mx.sliceAxis(x!, 0, 900, 910),
        mx.sliceAxis(x!, 1, 0, 100),
      ];
      truncateSync(path, 100_000);
      expect(head.at(9, 999).item()).toBe(9999);
      for (const part of [tail, rest, x!]) {
        expect(() => mx.eval(part)).toThrow(`${path} became shorter while it was in use`);
      }
      expect(mx.ones([2]).sum().item()).toBe(2);
    });
  });

  test("it is said where the tensor is used that was read ahead", () => {
    mx.scope(() => {
      const { x } = inFile("cut.safetensors", { x: counting([1000, 1000], "float32") });
      truncateSync(path, 100_000);
      const sum = x!.sum();
      mx.asyncEval([sum]);
      expect(() => sum.item()).toThrow("became shorter");
    });
  });

  test("saving it is an error", () => {
    mx.scope(() => {
      const { x } = inFile("cut.safetensors", { x: counting([1000, 1000], "float32") });
      truncateSync(path, 100_000);
      const target = join(folder, "copy.safetensors");
      expect(() => mx.saveSafetensors(target, new Map([["x", x!]]))).toThrow("became shorter");
    });
  });
});

const onLinux = test.skipIf(process.platform !== "linux");

onLinux("only a slice's own bytes are read", () => {
  mx.scope(() => {
    const size = 4 << 20;
    const x = mx.zeros([1024, 1024]);
    const { a, b } = inFile("bytes.safetensors", { a: x, b: x });
    const read = (part: mx.Tensor) => bytesRead(() => mx.eval(part)) / size;
    expect(read(mx.contiguous(mx.sliceAxis(a!, 0, 0, 256)))).toBeCloseTo(1 / 4, 1);
    expect(read(mx.contiguous(mx.sliceAxis(a!, 1, 0, 512)))).toBeCloseTo(1 / 2, 1);
    expect(read(mx.contiguous(mx.sliceAxis(mx.stack([a!, b!]), 2, 512, 1024)))).toBeCloseTo(1, 1);
    expect(read(mx.contiguous(mx.sliceAxis(mx.concatenate([a!, b!], { axis: 1 }), 0, 0, 128)))).toBeCloseTo(1 / 4, 1);
    // Gaps that cost less than another call.
    expect(read(mx.contiguous(mx.sliceAxis(a!, 1, 0, 1000)))).toBeCloseTo(1, 1);
    expect(read(a!)).toBeCloseTo(1, 1);
    // A view of what is joined: b is read whole, a was.
    expect(read(mx.sliceAxis(mx.concatenate([a!, b!]), 0, 1000, 1100))).toBeCloseTo(1, 1);
  });
});

/** How often this process has the file open. */
const openFilesOf = (path: string) =>
  readdirSync("/proc/self/fd").filter((name) => {
    try {
      return readlinkSync(join("/proc/self/fd", name)) === path;
    } catch {
      return false; // closed by now, as the listing's own is
    }
  }).length;

onLinux("loading, slicing and reading leave no handle, file or memory behind", () => {
  mx.scope(() => inFile("leak.safetensors", { x: counting([256, 256], "float32"), y: mx.ones([3]) }));
  const path = join(folder, "leak.safetensors");
  const step = (evaluate: boolean) =>
    mx.scope(() => {
      const { arrays } = mx.loadSafetensors(path);
      const x = arrays.get("x")!;
      const parts = [mx.sliceAxis(x, 0, 3, 9), mx.sliceAxis(mx.stack([x, x]), 1, 7, 90), x, arrays.get("y")!];
      if (evaluate) mx.eval(parts);
    });
  const state = () => [mx.liveHandles(), bytesInUse(), openFilesOf(path)];
  step(true);
  const before = state();
  for (let i = 0; i < 300; i++) step(i % 3 > 0);
  expect(state()).toEqual(before);
});
