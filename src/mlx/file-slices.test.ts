/** Slices of what is made of tensors in files: the same numbers as of tensors in memory, and no more read than they need. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import * as mx from ".";

countExactBytes();

const folder = mkdtempSync(join(tmpdir(), "mlxlm-file-slices-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Saves the tensors and opens them again, unread. */
function inFile(name: string, tensors: readonly mx.Tensor[]): mx.Tensor[] {
  const path = join(folder, name);
  mx.saveSafetensors(path, new Map(tensors.map((x, i) => [`${i}`, x])));
  const { arrays } = mx.loadSafetensors(path);
  return tensors.map((_, i) => arrays.get(`${i}`)!);
}

type Pair = [mx.Tensor, mx.Tensor];
type Step = (xs: Pair, n: number, m: number) => Pair;

const both = ([a, b]: Pair, change: (x: mx.Tensor) => mx.Tensor): Pair => [change(a), change(b)];

/** What the n-th step of a kind does; each keeps the two tensors of one shape. */
const steps: Record<string, Step> = {
  flatten: (xs, n) => {
    const axis = n % xs[0].ndim;
    return axis + 1 < xs[0].ndim ? both(xs, (x) => x.flatten(axis, axis + 1)) : xs;
  },
  unflatten: (xs, n, m) => {
    const axis = n % xs[0].ndim;
    const size = xs[0].dim(axis);
    const divisors = Array.from({ length: size }, (_, i) => i + 1).filter((i) => size % i === 0);
    return both(xs, (x) => x.unflatten(axis, [divisors[m % divisors.length]!, -1]));
  },
  reshape: (xs, n) => {
    const sizes = [...xs[0].shape];
    return both(xs, (x) => x.reshape([...sizes.slice(n % sizes.length), ...sizes.slice(0, n % sizes.length)]));
  },
  expand: (xs, n) => both(xs, (x) => x.expandDims(n % (x.ndim + 1))),
  turn: (xs, n, m) => both(xs, (x) => x.swapaxes(n % x.ndim, m % x.ndim)),
  join: ([a, b], n) => {
    const axis = n % a.ndim;
    return [mx.concatenate([a, b], { axis }), mx.concatenate([b, a], { axis })];
  },
  scale: (xs, n) => both(xs, (x) => x.multiply(n % 2 ? n + 1 : mx.arange(x.dim(-1)).add(1))),
  product: ([a, b]) => [a.multiply(b), b.multiply(a.sum({ axis: 0, keepdims: true }).astype(b.dtype))],
  cast: (xs, n) => both(xs, (x) => x.astype(n % 2 ? "float32" : "int32")),
  copy: (xs, n) => both(xs, (x) => (n % 2 ? mx.contiguous(x) : x.at(mx.slice()))),
  bytes: (xs) => both(xs, (x) => x.view("uint8")),
  words: (xs) => (xs[0].dtype === "uint8" && xs[0].dim(-1) % 4 === 0 ? both(xs, (x) => x.view("int32")) : xs),
  "every other": (xs, n) => {
    const axis = n % xs[0].ndim;
    const whole = Array.from({ length: axis }, () => mx.slice());
    return both(xs, (x) => x.at(...whole, mx.slice(n % x.dim(axis), undefined, n % 3 === 0 ? -2 : 2)));
  },
  cut: (xs, n, m) => {
    const axis = n % xs[0].ndim;
    const from = m % xs[0].dim(axis);
    const to = from + 1 + (n % (xs[0].dim(axis) - from));
    return both(xs, (x) => mx.sliceAxis(x, axis, from, to));
  },
};

test("are those of tensors in memory, whatever was done before", () => {
  const step = fc.tuple(fc.constantFrom(...Object.keys(steps)), fc.nat(40), fc.nat(40));
  const cases = fc.record({
    shape: fc.array(fc.constantFrom(1, 2, 3, 4, 6), { minLength: 1, maxLength: 3 }),
    before: fc.array(step, { maxLength: 5 }),
    cuts: fc.array(fc.tuple(fc.nat(40), fc.nat(40)), { minLength: 1, maxLength: 3 }),
  });
  fc.assert(
    fc.property(cases, ({ shape, before, cuts }) => {
      mx.scope(() => {
        const size = shape.reduce((a: number, b) => a * b, 1);
        const read: Pair = [mx.arange(size).reshape(shape), mx.arange(size).add(size).reshape(shape)];
        const parts = (xs: Pair) => {
          const all = [...before, ...cuts.map(([n, m]) => ["cut", n, m] as const)];
          return all.reduce((xs, [name, n, m]) => steps[name]!(xs, n, m), xs);
        };
        const [ours, expected] = [parts(inFile("steps.safetensors", read) as Pair), parts(read)];
        for (const [i, x] of ours.entries()) {
          expect([x.shape, x.dtype]).toEqual([expected[i]!.shape, expected[i]!.dtype]);
          expect(x.toList()).toEqual(expected[i]!.toList());
        }
      });
    }),
    { numRuns: 1000 },
  );
});

/** What this process reads while it evaluates. */
function bytesRead(x: mx.Tensor): number {
  const count = () => Number(/rchar: (\d+)/.exec(readFileSync("/proc/self/io", "utf8"))![1]);
  const before = count();
  mx.eval(x);
  return count() - before;
}

const rows = [1024, 1024];

/** Each takes an eighth of two tensors of 1,024 rows, or of one. */
const eighths: Record<string, (a: mx.Tensor, b: mx.Tensor) => mx.Tensor> = {
  "joined, of one": (a, b) => mx.sliceAxis(mx.concatenate([a, b]), 0, 1024, 1280),
  "joined, of both": (a, b) => mx.sliceAxis(mx.concatenate([a, b]), 0, 896, 1152),
  "joined beside one another": (a, b) => mx.sliceAxis(mx.concatenate([a, b], { axis: 1 }), 1, 768, 1024),
  "an axis divided": (a, b) => mx.stack([a, b]).unflatten(1, [8, 128]).split(8, 1)[3]!,
  "axes made one": (a, b) => mx.sliceAxis(mx.stack([a, b]).flatten(0, 1), 0, 256, 512),
  "a part of each head": (a, b) =>
    mx.sliceAxis(mx.concatenate([a.reshape(4, 256, 1024), b.reshape(4, 256, 1024)]), 1, 32, 64),
  "heads of a part of each": (a, b) => {
    const parts = [a, b].map((x) => mx.sliceAxis(x.reshape(4, 256, 1024), 1, 0, 128).reshape(512, 1024));
    return mx.sliceAxis(mx.concatenate(parts), 0, 128, 384);
  },
  "turned copies": (a, b) => mx.sliceAxis(mx.contiguous(mx.stack([a, b]).swapaxes(1, 2)), 2, 128, 256),
  "bytes as words": (a, b) => mx.sliceAxis(mx.stack([a, b]).view("uint8").view("float16").flatten(0, 1), 1, 256, 512),
  "scaled by blocks": (a, b) => {
    const scales = mx.arange(8).reshape(8, 1, 1);
    const scaled = [a, b].map((x) => x.reshape(8, 128, 1024).multiply(scales).reshape(1024, 1024).multiply(0.5));
    return mx.sliceAxis(mx.concatenate(scaled), 0, 256, 512);
  },
};

describe.skipIf(process.platform !== "linux")("reads an eighth", () => {
  test.each(Object.keys(eighths))("of tensors: %s", (name) => {
    mx.scope(() => {
      const [a, b] = inFile("rows.safetensors", [mx.zeros(rows), mx.zeros(rows)]) as Pair;
      const part = mx.contiguous(eighths[name]!(a, b));
      expect(part.nbytes).toBe((a.nbytes + b.nbytes) / 8);
      expect(bytesRead(part) / part.nbytes).toBeCloseTo(1, 1);
    });
  });
});

test.skipIf(process.platform !== "linux")("blocks that a cut goes through are read whole", () => {
  mx.scope(() => {
    const [a] = inFile("rows.safetensors", [mx.zeros(rows)]) as [mx.Tensor];
    const scaled = a
      .reshape(8, 128, 1024)
      .multiply(mx.arange(8).reshape(8, 1, 1))
      .reshape(1024, 1024);
    // 2 of 8: rows 200 to 299 are in the second and the third.
    expect(bytesRead(mx.contiguous(mx.sliceAxis(scaled, 0, 200, 300))) / a.nbytes).toBeCloseTo(2 / 8, 2);
  });
});

test.skipIf(process.platform !== "linux")("of every other row those between are read, and no more", () => {
  mx.scope(() => {
    const [a] = inFile("rows.safetensors", [mx.zeros(rows)]) as [mx.Tensor];
    const part = mx.sliceAxis(a.at(mx.slice(1, undefined, 2)), 0, 64, 128);
    expect(bytesRead(mx.contiguous(part)) / a.nbytes).toBeCloseTo(127 / 1024, 2);
  });
});

test.skipIf(process.platform !== "linux")("what has others between its elements is cut after it was read", () => {
  mx.scope(() => {
    const [a, b] = inFile("rows.safetensors", [mx.zeros(rows), mx.zeros(rows)]) as Pair;
    // Of 2 × 1024 rows as 512 × 4, the first two of each four.
    const some = mx.sliceAxis(mx.concatenate([a, b]).reshape(512, 4, 1024), 1, 0, 2);
    expect(bytesRead(mx.contiguous(some)) / (a.nbytes + b.nbytes)).toBeCloseTo(1, 1);
  });
});

test("leave no handle and no memory behind", () => {
  mx.scope(() => inFile("leak.safetensors", [mx.zeros([64, 64]), mx.ones([64, 64])]));
  const step = (evaluate: boolean) =>
    mx.scope(() => {
      const { arrays } = mx.loadSafetensors(join(folder, "leak.safetensors"));
      const joint = mx.concatenate([...arrays.values()]).unflatten(0, [8, -1]);
      const parts = [
        mx.sliceAxis(joint, 0, 3, 5),
        ...joint.multiply(2).split(2, 1),
        mx.sliceAxis(joint.flatten(0, 1), 0, 3, 70),
      ];
      if (evaluate) mx.eval(parts);
    });
  const state = () => [mx.liveHandles(), bytesInUse()];
  step(true);
  const before = state();
  for (let i = 0; i < 300; i++) step(i % 3 > 0);
  expect(state()).toEqual(before);
});
