/** What has a kernel of its own on CUDA or the CPU agrees with the same in separate operations, on whatever device there is. */
import { describe, expect, test } from "bun:test";
import * as mx from ".";

const dtypes = ["bfloat16", "float16", "float32"] as const;

/** How far a result may be off, relative to its largest value: a last place or two of the dtype. */
const tolerance = { bfloat16: 0.02, float16: 0.003, float32: 1e-5 };

const onCuda = mx.isAvailable("cuda");
const onCpu = mx.defaultDevice() === "cpu";

function expectClose(a: mx.Tensor, b: mx.Tensor, dtype: (typeof dtypes)[number], most: number = tolerance[dtype]) {
  expect(a.shape).toEqual(b.shape);
  expect(a.dtype).toBe(dtype);
  const [x, y] = [a.astype("float32"), b.astype("float32")];
  const off = x.subtract(y).abs().max().item() / y.abs().max().item();
  expect(off).toBeLessThan(most);
}

const draw = (shape: number[], dtype: mx.Dtype) => mx.random.normal({ shape }).astype(dtype);

describe("addRmsNorm", () => {
  for (const dtype of dtypes) {
    for (const [rows, dims] of [
      [1, 64],
      [1, 4096],
      [3, 1024],
      [1, 24],
      [2, 9000],
    ] as const) {
      test(`${rows} × ${dims}, ${dtype}`, () => {
        mx.scope(() => {
          const [x, delta] = [draw([1, rows, dims], dtype), draw([1, rows, dims], dtype)];
          const weight = draw([dims], dtype);
          const [sum, normed] = mx.fast.addRmsNorm(x, delta, weight, 1e-5);
          const expected = x.add(delta);
          expectClose(sum, expected, dtype);
          expectClose(normed, mx.fast.rmsNorm(expected, weight, 1e-5), dtype);
        });
      });
    }
  }

  test("has a gradient", () => {
    mx.scope(() => {
      const [x, delta, weight] = [draw([1, 1, 64], "float32"), draw([1, 1, 64], "float32"), draw([64], "float32")];
      const gradient = (norm: (x: mx.Tensor) => mx.Tensor) =>
        mx.valueAndGrad((x: mx.Tensor) => norm(x).square().sum())(x)[1] as unknown as mx.Tensor;
      const fused = gradient((x) => mx.fast.addRmsNorm(x, delta, weight, 1e-5)[1]);
      expectClose(
        fused,
        gradient((x) => mx.fast.rmsNorm(x.add(delta), weight, 1e-5)),
        "float32",
      );
    });
  });
});

describe("lowRank", () => {
  for (const dtype of ["bfloat16", "float16"] as const) {
    for (const [rows, inputs, outputs, rank] of [
      [64, 32, 64, 8],
      [130, 1056, 96, 16],
      [257, 96, 544, 32],
      [70, 64, 4096, 64],
      [70, 64, 96, 4],
      [3, 64, 96, 8],
    ] as const) {
      test(`${rows} × ${inputs} → ${outputs} by ${rank}, ${dtype}, and its gradients`, () => {
        mx.scope(() => {
          const [base, x] = [draw([2, rows, outputs], dtype), draw([2, rows, inputs], dtype)];
          const a = draw([inputs, rank], "float32").divide(Math.sqrt(inputs));
          const b = draw([rank, outputs], "float32").divide(Math.sqrt(rank));
          const slope = draw([2, rows, outputs], dtype);
          const both = (...primals: mx.Tensor[]) =>
            mx.vjp((...[y, x, a, b]) => mx.fast.lowRank(y!, x!, a!, b!, 2), primals, [slope.astype(primals[0]!.dtype)]);
          const [[sum], slopes] = both(base, x, a, b);
          const exact = (tensor: mx.Tensor) => tensor.astype("float32");
          const [[expected], expectedSlopes] = both(exact(base), exact(x), a, b);
          expectClose(sum!, expected!, dtype);
          slopes.forEach((found, i) => {
            expectClose(found, expectedSlopes[i]!, i < 2 ? dtype : "float32", tolerance[dtype]);
          });
        });
      });
    }
  }
});

describe("gradients by kernels on a CPU", () => {
  type Case = { primals(dtype: mx.Dtype): mx.Tensor[]; fn(...primals: mx.Tensor[]): mx.Tensor };
  const rows = (count: number, dims: number) => (dtype: mx.Dtype) => draw([2, count, dims], dtype);
  const cases: Record<string, Case> = {};
  for (const [count, dims] of [
    [1, 1],
    [3, 70],
    [5, 1024],
    [40, 513],
  ] as const) {
    const one = rows(count, dims);
    cases[`rms norm of ${count} × ${dims}`] = {
      primals: (dtype) => [one(dtype), draw([dims], dtype)],
      fn: (x, weight) => mx.fast.rmsNorm(x!, weight!, 1e-5),
    };
    cases[`rms norm without weight of ${count} × ${dims}`] = {
      primals: (dtype) => [one(dtype)],
      fn: (x) => mx.fast.rmsNorm(x!, null, 1e-5),
    };
    cases[`sum and rms norm of ${count} × ${dims}`] = {
      primals: (dtype) => [one(dtype), one(dtype), draw([dims], dtype)],
      fn: (x, delta, weight) => mx.fast.addRmsNorm(x!, delta!, weight!, 1e-5)[1],
    };
    for (const kind of ["silu", "gelu"] as const) {
      cases[`${kind} gate of ${count} × ${dims}`] = {
        primals: (dtype) => [one(dtype), one(dtype)],
        fn: (gate, x) => mx.fast.gated(kind, gate!, x!),
      };
    }
    cases[`gate of a view of ${count} × ${dims}`] = {
      primals: (dtype) => [one(dtype), draw([dims, count, 2], dtype)],
      fn: (gate, x) => mx.fast.gated("silu", gate!, x!.transpose(2, 1, 0)),
    };
  }
  for (const dims of [16, 24]) {
    cases[`rotation of ${dims} of 24`] = {
      primals: (dtype) => [draw([2, 3, 5, 24], dtype)],
      fn: (x) => mx.fast.rope(x!, dims, { base: 100, scale: 0.5, offset: 7 }),
    };
    cases[`rotation of ${dims} of a view, by wavelengths`] = {
      primals: (dtype) => [draw([2, 5, 3, 24], dtype)],
      fn: (x) =>
        mx.fast.rope(x!.transpose(0, 2, 1, 3), dims, { base: null, freqs: mx.arange(1, dims / 2 + 1), offset: 3 }),
    };
  }
  for (const dtype of dtypes) {
    for (const [name, { primals, fn }] of Object.entries(cases)) {
      test.skipIf(!onCpu)(`${name}, ${dtype}`, () => {
        mx.scope(() => {
          const inputs = primals(dtype);
          const slope = draw(fn(...inputs).shape as number[], dtype);
          const exact = (tensor: mx.Tensor) => tensor.astype("float32");
          const [[found], slopes] = mx.vjp(fn, inputs, [slope]);
          mx.enableCpuKernels(false);
          const [[expected], expectedSlopes] = mx.vjp(fn, inputs.map(exact), [exact(slope)]);
          mx.enableCpuKernels(true);
          expectClose(found!, expected!, dtype);
          for (const [i, each] of slopes.entries()) {
            expect(each.shape).toEqual(expectedSlopes[i]!.shape);
            const off = exact(each).subtract(expectedSlopes[i]!).abs().max().item();
            const size = Math.max(1, expectedSlopes[i]!.abs().max().item());
            expect(off / size).toBeLessThan(tolerance[dtype]);
          }
        });
      });
    }
  }
});

describe("crossEntropy", () => {
  for (const dtype of dtypes) {
    for (const [rows, classes] of [
      [1, 1],
      [3, 7],
      [9, 1001],
    ] as const) {
      test.skipIf(!onCpu)(`${rows} of ${classes}, ${dtype}, and its gradient`, () => {
        mx.scope(() => {
          const logits = draw([rows, classes], dtype).multiply(8);
          const ids = mx.array(
            Int32Array.from({ length: rows }, (_, i) => (i * 997) % classes),
            "int32",
            [rows],
          );
          const slope = draw([rows], dtype);
          const exact = logits.astype("float32");
          const [[losses], [found]] = mx.vjp((x) => mx.fast.crossEntropy(x!, ids)!, [logits], [slope]);
          const [[expected], [slopes]] = mx.vjp(
            (x) => x!.logsumexp({ axis: -1 }).subtract(x!.takeAlongAxis(ids.expandDims(-1), -1).squeeze(-1)),
            [exact],
            [slope.astype("float32")],
          );
          const close = (a: mx.Tensor, b: mx.Tensor) => {
            const off = a.astype("float32").subtract(b).abs().max().item();
            expect(off / Math.max(1, b.abs().max().item())).toBeLessThan(tolerance[dtype]);
          };
          close(losses!, expected!);
          close(found!, slopes!);
        });
      });
    }
  }

  test.skipIf(!onCpu)("infinite logits, targets that there are not, no rows", () => {
    mx.scope(() => {
      const losses = (logits: number[][], targets: number[]) =>
        mx.fast.crossEntropy(mx.array(logits, "float32"), mx.array(targets, "int32"))!.toList();
      expect(losses([[Number.NEGATIVE_INFINITY, 0]], [1])).toEqual([0]);
      expect(losses([[Number.NEGATIVE_INFINITY, 0]], [0])).toEqual([Number.POSITIVE_INFINITY]);
      expect(
        losses(
          [
            [1, 2],
            [1, 2],
          ],
          [2, -1],
        ),
      ).toEqual([Number.NaN, Number.NaN]);
      expect(mx.fast.crossEntropy(mx.zeros([0, 5]), mx.zeros([0], "int32"))).toBeNull();
    });
  });
});

describe("silu", () => {
  for (const dtype of dtypes) {
    test(`of rows, of a view and of a number, ${dtype}`, () => {
      mx.scope(() => {
        for (const x of [draw([2, 3, 70], dtype), draw([4, 5, 6], dtype).transpose(2, 0, 1), draw([], dtype)]) {
          expectClose(mx.fast.silu(x), x.multiply(x.sigmoid()), dtype);
        }
      });
    });
  }

  test("has a gradient", () => {
    mx.scope(() => {
      const x = draw([3, 8], "float32");
      const slope = (silu: (x: mx.Tensor) => mx.Tensor) =>
        mx.valueAndGrad((x: mx.Tensor) => silu(x).sum())(x)[1] as unknown as mx.Tensor;
      expectClose(
        slope(mx.fast.silu),
        slope((x) => x.multiply(x.sigmoid())),
        "float32",
      );
    });
  });
});

describe("rotateHeads", () => {
  const [heads, kvHeads] = [6, 2];
  for (const [dtype, dims, rotated, parts] of [
    ["bfloat16", 64, 64, []],
    ["float16", 128, 128, ["norms"]],
    ["bfloat16", 128, 64, ["norms", "frequencies"]],
    ["bfloat16", 256, 256, ["frequencies"]],
    ["float32", 64, 32, ["norms"]],
  ] as const) {
    const hasKernel = onCpu || (onCuda && dtype !== "float32");
    test.skipIf(!hasKernel)([dtype, `${rotated} of ${dims}`, ...parts].join(", "), () => {
      mx.scope(() => {
        const wants = (part: string) => (parts as readonly string[]).includes(part);
        const joint = draw([2, 1, (heads + 2 * kvHeads) * dims], dtype);
        const norms = wants("norms")
          ? { queries: draw([dims], dtype), keys: draw([dims], dtype), eps: 1e-6 }
          : undefined;
        const freqs = wants("frequencies") ? mx.arange(1, 1 + rotated / 2).astype("float32") : null;
        const angles = { base: freqs ? null : 10_000, scale: freqs ? 1 : 0.5, offset: 37, freqs };
        const made = mx.fast.rotateHeads(joint, { heads, kvHeads, dims: rotated, norms, ...angles });
        const all = joint.reshape(2, heads + 2 * kvHeads, 1, dims).split([heads, heads + kvHeads], 1);
        const turned = (x: mx.Tensor, weight?: mx.Tensor) =>
          mx.fast.rope(weight ? mx.fast.rmsNorm(x, weight, 1e-6) : x, rotated, angles);
        expectClose(made[0], turned(all[0]!, norms?.queries), dtype);
        expectClose(made[1], turned(all[1]!, norms?.keys), dtype);
        expectClose(made[2], all[2]!, dtype);
      });
    });
  }

  test("answers by operations for float32 on CUDA, and where kernels are off or there are none", () => {
    mx.enableCpuKernels(false);
    try {
      mx.scope(() => {
        const options = { heads, kvHeads, dims: 64, base: 10_000, scale: 1, offset: 0, freqs: null };
        for (const dtype of onCuda ? (["float32"] as const) : dtypes) {
          const joint = draw([1, 1, (heads + 2 * kvHeads) * 64], dtype);
          const all = joint.reshape(1, heads + 2 * kvHeads, 1, 64).split([heads, heads + kvHeads], 1);
          const made = mx.fast.rotateHeads(joint, options);
          expectClose(made[0], mx.fast.rope(all[0]!, 64, options), dtype);
          expectClose(made[1], mx.fast.rope(all[1]!, 64, options), dtype);
          expectClose(made[2], all[2]!, dtype);
        }
      });
    } finally {
      mx.enableCpuKernels(true);
    }
  });
});

/** One, two and four outputs a warp; a last warp with fewer. */
const weights = [
  [43, 128],
  [2051, 4096],
  [8202, 640],
] as const;

describe("one row times a quantized weight", () => {
  for (const [outputs, inputs] of weights) {
    for (const [dtype, bits, groupSize] of [
      ["bfloat16", 4, 64],
      ["float16", 4, 32],
      ["bfloat16", 8, 128],
    ] as const) {
      test.skipIf(!onCuda)(`${outputs} × ${inputs}, ${bits} bits in groups of ${groupSize}, ${dtype}`, () => {
        mx.scope(() => {
          const [w, scales, biases] = mx.quantize(draw([outputs, inputs], dtype), { bits, groupSize });
          const x = draw([1, 1, inputs], dtype);
          const product = mx.quantizedMatmul(x, w, scales, biases!, { bits, groupSize });
          const dense = mx.dequantize(w, scales, biases!, { bits, groupSize }).astype("float32");
          expectClose(product, x.astype("float32").matmul(dense.T), dtype);
        });
      });
    }
  }
});

describe("along one axis", () => {
  test("slices and updates", () => {
    mx.scope(() => {
      const x = mx.arange(24).reshape(2, 3, 4);
      expect(mx.sliceAxis(x, 1, 1, 3).toList()).toEqual(x.at(":", mx.slice(1, 3)).toList());
      expect(mx.sliceAxis(x, -1, 0, 1).toList()).toEqual(x.at(mx.ellipsis, mx.slice(0, 1)).toList());
      const update = mx.zeros([2, 3, 2], "int32");
      const expected = x.put([mx.ellipsis, mx.slice(1, 3)], 0);
      expect(mx.updateAxis(x, update, 2, 1).toList()).toEqual(expected.toList());
      const block = x.put([1, mx.slice(1, 3), mx.slice(2, 4)], 7);
      expect(mx.updateBlock(x, mx.full([1, 2, 2], 7, "int32"), [1, 1, 2]).toList()).toEqual(block.toList());
    });
  });

  test("refuses an axis or rows that are not there", () => {
    mx.scope(() => {
      const x = mx.zeros([2, 3]);
      expect(() => mx.sliceAxis(x, 2, 0, 1)).toThrow("axis 2 of an array with 2 axes");
      expect(() => mx.updateAxis(x, mx.zeros([2, 2]), 1, 2)).toThrow("rows 2 to 4 of an axis of 3");
    });
  });
});
