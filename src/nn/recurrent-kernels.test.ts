/** Recurrent layers with kernels of ours against the same by MLX's operations: odd sizes, padded rows, pieces of a text. */
import { describe, expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  CausalConv1d,
  channelDeltaRule,
  decayingAttention,
  GatedDeltaNet,
  GatedRMSNorm,
  gatedDeltaRule,
  Mamba2Mixer,
  MambaMixer,
  type Module,
} from ".";

countExactBytes();

const dtypes = ["float32", "bfloat16", "float16"] as const;
type Float = (typeof dtypes)[number];

/** How far results may be off, relative to the largest: operations round half precision at every step, kernels once. */
const tolerance: Record<Float, number> = {
  // CUDA's products of float32 round their factors to 10 bits.
  float32: mx.isAvailable("cuda") ? 4e-3 : 1e-5,
  bfloat16: 0.06,
  float16: 0.008,
};

const hasKernels = mx.defaultDevice() === "cpu" || mx.isAvailable("cuda");

/** By MLX's operations, on the CPU. */
function byOperations<T>(fn: () => T): T {
  const device = mx.defaultDevice();
  mx.setDefaultDevice("cpu");
  mx.enableCpuKernels(false);
  try {
    return fn();
  } finally {
    mx.enableCpuKernels(true);
    mx.setDefaultDevice(device);
  }
}

const normal = (shape: number[], dtype: mx.Dtype = "float32") => mx.random.normal({ shape }).astype(dtype);

function expectClose(actual: readonly Tensor[], expected: readonly Tensor[], dtype: Float) {
  expect(actual.map((x) => [x.shape, x.dtype])).toEqual(expected.map((x) => [x.shape, x.dtype]));
  for (const [i, x] of actual.entries()) {
    if (x.size === 0) continue;
    const [a, b] = [x.astype("float32"), expected[i]!.astype("float32")];
    expect(mx.isfinite(a).all().item()).toBeTruthy();
    expect(a.subtract(b).abs().max().item() / (b.abs().max().item() + 1e-3)).toBeLessThan(tolerance[dtype]);
  }
}

/** Which of T tokens are a row's own: all but the first `padding` of each. */
const ownBehind = (length: number, padding: readonly number[]) =>
  mx.arange(length).greaterEqual(mx.array(padding, "int32", [padding.length, 1]));

describe.skipIf(!hasKernels)("short convolutions", () => {
  for (const dtype of dtypes) {
    for (const [channels, taps, length] of [
      [1, 1, 3],
      [7, 2, 1],
      [64, 4, 1],
      [515, 4, 2],
      [96, 3, 70],
      [33, 7, 40],
      [40, 16, 5],
    ] as const) {
      test(`${channels} channels, ${taps} taps, ${length} tokens, ${dtype}`, () => {
        mx.scope(() => {
          for (const bias of [false, true]) {
            mx.random.seed(channels + taps);
            const conv = new CausalConv1d(channels, taps, { bias });
            if (bias) conv.update([["bias", normal([channels], dtype)]]);
            conv.update([["weight", normal([channels, taps, 1], dtype)]]);
            // Views of something wider, as projections that are joined make them.
            const joint = normal([2, length, 3 * channels + 5], dtype);
            const [, x, opening, gate] = joint.split([5, 5 + channels, 5 + 2 * channels], -1) as Four;
            const before = normal([2, taps - 1, channels], dtype);
            for (const options of [
              {},
              { before, silu: true },
              { before, opening, gate },
              { own: ownBehind(length, [Math.min(3, length - 1), 0]), before, silu: true, opening },
              { lengths: [length, Math.max(0, length - 2)], before, silu: true },
            ]) {
              const got = conv.forward(x, options);
              expectClose(
                got,
                byOperations(() => conv.forward(x, options)),
                dtype,
              );
            }
            conv.dispose();
          }
        });
      });
    }
  }
});

/** A layer's answers on pieces of one text of two rows, the first padded, and what its cache then holds. */
function answers(
  layer: { forward(x: Tensor, own: Tensor | null, cache?: ArraysCache): Tensor },
  pieces: readonly Tensor[],
) {
  const cache = new ArraysCache(2, 2, [3, 0]);
  const results = pieces.map((piece) => layer.forward(piece, cache.makeMask(piece.dim(1)), cache));
  const states = [cache.get(0)!, cache.get(1)!].map((state) => state.add(0));
  mx.eval(...results, ...states);
  cache.dispose();
  // What stands in a padded place is nobody's.
  const [first, ...rest] = results as [Tensor, ...Tensor[]];
  return [mx.sliceAxis(first, 1, 3, first.dim(1)), ...rest, ...states];
}

function compareLayers(make: () => Module & Parameters<typeof answers>[0], dims: number) {
  for (const dtype of dtypes) {
    for (const lengths of [
      [4, 1, 1],
      [32, 1, 2],
      [70, 33],
    ]) {
      test(`pieces of ${lengths.join(", ")} tokens, ${dtype}`, () => {
        mx.scope(() => {
          mx.random.seed(lengths[0]!);
          const layer = make();
          layer.update(layer.namedParameters().map(([name, x]) => [name, name === "A_log" ? x : x.astype(dtype)]));
          const pieces = lengths.map((length) => normal([2, length, dims], dtype));
          const got = answers(layer, pieces);
          expectClose(
            got,
            byOperations(() => answers(layer, pieces)),
            dtype,
          );
          layer.dispose();
        });
      });
    }
  }
}

for (const [keyHeads, valueHeads, keyDim, valueDim] of [
  [2, 4, 16, 24],
  [3, 3, 20, 7],
  [1, 2, 128, 40],
  [1, 1, 64, 64],
] as const) {
  describe.skipIf(!hasKernels)(`gated delta rule, ${keyHeads} of ${keyDim}, ${valueHeads} of ${valueDim}`, () => {
    const sizes = { dims: 32, keyHeads, valueHeads, keyDim, valueDim, kernelSize: 4, eps: 1e-6 };
    compareLayers(() => new GatedDeltaNet(sizes), 32);
  });
}

for (const [headDim, groups, stateSize, normed] of [
  [16, 2, 24, false],
  [5, 1, 16, true],
  [64, 4, 128, true],
] as const) {
  describe.skipIf(!hasKernels)(`state space, 4 heads of ${headDim}, ${groups} groups, states of ${stateSize}`, () => {
    const sizes = { dims: 32, heads: 4, headDim, groups, stateSize, kernelSize: 4 };
    const norm = () => (normed ? new GatedRMSNorm(4 * headDim, 1e-5, groups) : undefined);
    const options = { bias: false, convBias: true, limits: [0.01, 2] as const };
    compareLayers(() => new Mamba2Mixer(sizes, { ...options, norm: norm() }), 32);
  });
}

for (const [channels, stateSize] of [
  [48, 16],
  [70, 5],
  [130, 20],
] as const) {
  describe.skipIf(!hasKernels)(`selective scan, ${channels} channels, states of ${stateSize}`, () => {
    const sizes = { dims: 32, channels, stateSize, kernelSize: 4, stepRank: 8, bias: false, convBias: true };
    compareLayers(() => new MambaMixer(sizes), 32);
  });
}

describe.skipIf(!hasKernels)("rules", () => {
  const [batch, heads] = [2, 3];
  for (const dtype of dtypes) {
    for (const [length, keyDims, valueDims] of [
      [1, 64, 64],
      [1, 20, 9],
      [33, 16, 5],
      [40, 128, 18],
      [5, 200, 3],
    ] as const) {
      const perKey = (scale = 1) => normal([batch, length, heads, keyDims], dtype).multiply(scale / Math.sqrt(keyDims));
      const perValue = () => normal([batch, length, heads, valueDims], dtype);
      const perHead = () => normal([batch, length, heads], dtype);
      const state = () => normal([batch, heads, valueDims, keyDims]);

      test(`${length} tokens, keys of ${keyDims}, values of ${valueDims}, ${dtype}`, () => {
        mx.scope(() => {
          mx.random.seed(length + keyDims);
          const own = ownBehind(length, [Math.min(2, length - 1), 0]);
          const [q, k, v, strength] = [perKey(), perKey(), perValue(), perHead().sigmoid()];
          const decay = perHead().exp().negative();
          const rates = normal([batch, length, heads, keyDims]).exp().negative();
          const [readers, changes, before] = [perKey(0.5), perKey(0.5), state()];
          const rules = [
            () => gatedDeltaRule({ q, k, v, strength, decay }, before, own),
            () => channelDeltaRule({ r: q, k, v, a: readers, b: changes, decay: rates }, before, own),
            () => channelDeltaRule({ r: q, k, v, a: readers, decay: rates }, null, own),
            () => decayingAttention({ entering: v.astype("float32"), B: k, C: q, decays: decay }, before),
          ];
          for (const rule of rules) {
            // What is not a row's own is answered, but means nothing.
            const meant = ([y, after]: [Tensor, Tensor]) => [mx.sliceAxis(y, 1, length > 1 ? 2 : 0, length), after];
            const wanted = meant(byOperations(rule));
            expectClose(
              meant(rule()).map((x, i) => x.astype(wanted[i]!.dtype)),
              wanted,
              dtype,
            );
          }
        });
      });
    }
  }
});

test("wrong shapes are errors, not crashes", () => {
  mx.scope(() => {
    const [x, weight] = [normal([2, 5, 8]), normal([8, 4, 1])];
    const conv = (options: object) => () => mx.fast.shortConvolution(x, { weight, ...options });
    expect(conv({ weight: normal([7, 4, 1]) })).toThrow("weight has the shape (7,4,1), not (8,4,1)");
    expect(conv({ before: normal([2, 4, 8]) })).toThrow("before has the shape (2,4,8), not (2,3,8)");
    expect(conv({ lengths: [5] })).toThrow("1 lengths for 2 rows");
    expect(conv({ lengths: [5, 6] })).toThrow("a length of 6 in a batch of 5 tokens");
    expect(conv({ own: mx.ones([2, 5]) })).toThrow("own must be of booleans");
    expect(conv({ gate: normal([2, 5, 7]) })).toThrow("gate has the shape (2,5,7), not (2,5,8)");

    const [queries, keys, values] = [normal([2, 5, 2, 8]), normal([2, 5, 2, 8]), normal([2, 5, 4, 3])];
    const rule = (options: object) => () =>
      mx.fast.recurrence({ queries, keys, values, decay: normal([2, 5, 4]), ...options });
    expect(rule({ decay: normal([2, 5, 3]) })).toThrow("decay has the shape (2,5,3), not (2,5,4)");
    expect(rule({ state: normal([2, 4, 8, 3]) })).toThrow("state has the shape (2,4,8,3), not (2,4,3,8)");
    expect(rule({ values: normal([2, 5, 3, 3]) })).toThrow("3 heads of values cannot share 2 of keys");
    expect(rule({ strength: normal([2, 5, 4]), readers: keys })).toThrow("either a strength, or readers");

    const space = (options: object) => () =>
      mx.fast.stateSpace({
        ...{ mixed: normal([1, 2, 4 * 3 + 2 * 5]), steps: normal([1, 2, 4]), gate: null, state: null, own: null },
        ...{ rates: normal([4]), passing: normal([4]), stepBias: normal([4]), limits: [0, 1], groups: 1, headDim: 3 },
        ...options,
      });
    expect(space({ groups: 3 })).toThrow("4 heads of values cannot share 3 of keys");
    expect(space({ mixed: normal([1, 2, 21]) })).toThrow(
      "what enters has 9 numbers a token for 2 parts of equal width",
    );
    expect(space({ headDim: 9 })).toThrow("what enters has -14 numbers");
    expect(space({ rates: normal([4, 1]) })).toThrow("which is not 1 axes");

    const scan = (options: object) => () =>
      mx.fast.selectiveScan({
        ...{ x: normal([1, 2, 6]), steps: normal([1, 2, 6]), B: normal([1, 2, 4]), C: normal([1, 2, 4]) },
        ...{ gate: normal([1, 2, 6]), rates: normal([6, 4]), passing: normal([6]), state: null, own: null },
        ...options,
      });
    expect(scan({ B: normal([1, 2, 5]) })).toThrow("B has the shape (1,2,5), not (1,2,4)");
    expect(scan({ state: normal([1, 4, 6]) })).toThrow("state has the shape (1,4,6), not (1,6,4)");
  });
});

test("a state that is still wanted stays as it was", () => {
  mx.scope(() => {
    const [queries, keys, values] = [normal([1, 1, 1, 16]), normal([1, 1, 1, 16]), normal([1, 1, 1, 4])];
    const state = normal([1, 1, 4, 16]);
    const before = state.toList();
    const made = mx.fast.recurrence({ queries, keys, values, decay: mx.full([1, 1, 1], -1, "float32"), state });
    if (made) mx.eval(...made);
    expect(state.toList()).toEqual(before);
  });
});

test("layers leave no tensor and no memory behind", () => {
  const sizes = { dims: 32, keyHeads: 1, valueHeads: 2, keyDim: 32, valueDim: 32, kernelSize: 4, eps: 1e-6 };
  const layer = new GatedDeltaNet(sizes);
  mx.eval(...layer.namedParameters().map(([, x]) => x), mx.random.state.get());
  const cache = new ArraysCache(2);
  const step = (length: number) => {
    const y = mx.scope(() => layer.forward(mx.ones([1, length, 32]), null, cache));
    mx.eval(y, cache.get(0)!, cache.get(1)!);
    y.dispose();
  };
  step(5);
  step(1);
  const [handles, memory] = [mx.liveHandles(), bytesInUse()];
  for (let i = 0; i < 200; i++) step(1 + (i % 3));
  step(1);
  expect(mx.liveHandles()).toBe(handles);
  expect(bytesInUse()).toBe(memory);
  cache.dispose();
  layer.dispose();
});

type Four = [Tensor, Tensor, Tensor, Tensor];
