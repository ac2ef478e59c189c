/**
 * Numbers packed as GGUF's blocks, by the searches of ggml's reference quantizer (ggml-quants.c): rows (R, K) of any floating
 * dtype → their bytes, uint8.
 */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";

/** (R, K) → (R, K / width, width) float32 */
const grouped = (x: Tensor, width: number): Tensor => x.astype("float32").unflatten(-1, [-1, width]);

/** The number of the greatest size of each group, with its sign: (…, width) → (…, 1) */
function extreme(x: Tensor): Tensor {
  const place = mx.argmax(x.abs(), { axis: -1, keepdims: true });
  return mx.takeAlongAxis(x, place, { axis: -1 });
}

/** 1 / x, and 0 for 0. */
const inverse = (x: Tensor): Tensor => mx.where(x.equal(0), 0, mx.divide(1, mx.where(x.equal(0), 1, x)));

const codes = (x: Tensor, most: number): Tensor => mx.clip(x, 0, most).astype("uint8");

const half = (x: Tensor): Tensor => x.astype("float16").view("uint8");

const beside = (...parts: Tensor[]): Tensor => mx.concatenate(parts, { axis: -1 });

/** Values of four bits: the first half of the last axis low, the second high. */
function nibbles(x: Tensor): Tensor {
  const [low, high] = x.split(2, -1) as [Tensor, Tensor];
  return low.bitwiseOr(high.leftShift(4));
}

/** One bit of each of 8 n values: (…, 8 n) of 0 and 1 → (…, n) bytes, the first value lowest. */
function bits(x: Tensor): Tensor {
  const places = mx.array([0, 1, 2, 3, 4, 5, 6, 7], "uint8");
  return x.unflatten(-1, [-1, 8]).leftShift(places).sum({ axis: -1 }).astype("uint8");
}

export function packQ4_0(x: Tensor): Tensor {
  const blocks = grouped(x, 32);
  const d = extreme(blocks).divide(-8);
  const own = codes(blocks.multiply(inverse(d)).add(8.5).floor(), 15);
  return beside(half(d), nibbles(own));
}

export function packQ5_0(x: Tensor): Tensor {
  const blocks = grouped(x, 32);
  const d = extreme(blocks).divide(-16);
  const own = codes(blocks.multiply(inverse(d)).add(16.5).floor(), 31);
  return beside(half(d), bits(own.rightShift(4)), nibbles(own.bitwiseAnd(15)));
}

export function packQ5_1(x: Tensor): Tensor {
  const blocks = grouped(x, 32);
  const least = blocks.min({ axis: -1, keepdims: true });
  const d = blocks.max({ axis: -1, keepdims: true }).subtract(least).divide(31);
  const own = codes(blocks.subtract(least).multiply(inverse(d)).add(0.5).floor(), 31);
  return beside(half(d), half(least), bits(own.rightShift(4)), nibbles(own.bitwiseAnd(15)));
}

const sum = (x: Tensor): Tensor => x.sum({ axis: -1, keepdims: true });

/** Computes what a step of a search gives, and frees the rest. */
const step = <T extends Record<string, Tensor>>(make: () => T): T =>
  mx.scope(() => {
    const made = make();
    mx.eval({ ...made });
    return made;
  });

/** How codes of groups with a factor and a minimum are sought: other ranges than the numbers' own, in even steps. */
interface Search {
  /** The greatest code. */
  most: number;
  first: number;
  steps: number;
}

/** Factors and minima (…, 1) that make the weighted squares of the errors of x (…, 32) small; larger numbers weigh more. */
function affineFit(x: Tensor, { most, first, steps }: Search): { scale: Tensor; low: Tensor } {
  const given = step(() => {
    const size = mx.sqrt(x.square().mean({ axis: -1, keepdims: true }));
    const weights = size.add(x.abs());
    const low = x.min({ axis: -1, keepdims: true }).minimum(0);
    return { weights, low, range: x.max({ axis: -1, keepdims: true }).subtract(low) };
  });
  const { weights, low: least, range } = given;
  const error = (own: Tensor, scale: Tensor, low: Tensor) =>
    sum(weights.multiply(own.multiply(scale).add(low).subtract(x).square()));
  const codesFor = (share: number) =>
    mx.clip(mx.round(x.subtract(least).multiply(inverse(range).multiply(share))), 0, most);
  let best = step(() => {
    const scale = range.divide(most);
    return { scale, low: least.add(0), error: error(codesFor(most), scale, least) };
  });
  for (let i = 0; i <= steps; i++) {
    const before = best;
    best = step(() => {
      const own = codesFor(first + 0.1 * i + most);
      const [w, wx] = [sum(weights), sum(weights.multiply(x))];
      const [wl, wll, wxl] = [
        sum(weights.multiply(own)),
        sum(weights.multiply(own.square())),
        sum(weights.multiply(x).multiply(own)),
      ];
      const determinant = w.multiply(wll).subtract(wl.square());
      const by = inverse(determinant);
      const freeLow = wll.multiply(wx).subtract(wl.multiply(wxl)).multiply(by);
      const isPositive = freeLow.greater(0);
      const scale = mx.where(
        isPositive,
        wxl.multiply(inverse(wll)),
        w.multiply(wxl).subtract(wx.multiply(wl)).multiply(by),
      );
      const low = mx.where(isPositive, 0, freeLow);
      const own2 = error(own, scale, low);
      const isBetter = determinant.greater(0).logicalAnd(own2.less(before.error));
      return {
        scale: mx.where(isBetter, scale, before.scale),
        low: mx.where(isBetter, low, before.low),
        error: mx.where(isBetter, own2, before.error),
      };
    });
  }
  return { scale: best.scale, low: best.low };
}

/** Eight factors and eight minima of 6 bits in 12 bytes: (…, 8) uint8 each → (…, 12) */
function factorBytes(factors: Tensor, minima: Tensor): Tensor {
  const [f, g] = factors.split(2, -1) as [Tensor, Tensor];
  const [m, n] = minima.split(2, -1) as [Tensor, Tensor];
  const upper = (x: Tensor) => x.rightShift(4).leftShift(6);
  return beside(
    f.bitwiseOr(upper(g)),
    m.bitwiseOr(upper(n)),
    g.bitwiseAnd(15).bitwiseOr(n.bitwiseAnd(15).leftShift(4)),
  );
}

/** Blocks of 256 with eight groups: two factors of the block, small ones of the groups, and codes. */
function affineBlocks(x: Tensor, search: Search): { head: Tensor; own: Tensor } {
  const groups = grouped(x, 256).unflatten(-1, [8, 32]);
  const { scale, low } = affineFit(groups, search);
  const [scales, minima] = [scale.squeeze(-1), low.squeeze(-1).negative()];
  const small = (all: Tensor): [d: Tensor, own: Tensor] => {
    const largest = all.max({ axis: -1, keepdims: true }).maximum(0);
    return [largest.divide(63), codes(mx.round(all.multiply(inverse(largest)).multiply(63)), 63)];
  };
  const [[d, factors], [dmin, lows]] = [small(scales), small(minima)];
  const rounded = (one: Tensor, by: Tensor) => one.astype("float16").astype("float32").multiply(by.astype("float32"));
  const [steps, offsets] = [rounded(d, factors), rounded(dmin, lows)];
  const shifted = groups.add(offsets.expandDims(-1));
  const own = codes(mx.round(shifted.multiply(inverse(steps).expandDims(-1))), search.most);
  return { head: beside(half(d), half(dmin), factorBytes(factors, lows)), own };
}

/** (…, 8, 32) values of four bits → (…, 128): two groups beside each other in the nibbles of 32 bytes. */
const pairs = (own: Tensor): Tensor => {
  const [low, high] = own.unflatten(-2, [4, 2]).split(2, -2) as [Tensor, Tensor];
  return low.bitwiseOr(high.leftShift(4)).flatten(-3, -1);
};

export function packQ4K(x: Tensor): Tensor {
  const { head, own } = affineBlocks(x, { most: 15, first: -1, steps: 20 });
  return beside(head, pairs(own));
}

export function packQ5K(x: Tensor): Tensor {
  const { head, own } = affineBlocks(x, { most: 31, first: -0.5, steps: 15 });
  const places = mx.array([0, 1, 2, 3, 4, 5, 6, 7], "uint8", [8, 1]);
  const high = own.rightShift(4).leftShift(places).sum({ axis: -2 }).astype("uint8");
  return beside(head, high, pairs(own.bitwiseAnd(15)));
}

/** Factors (…, 1) for codes −32 to 31 of x (…, 16), by trying other ranges than the numbers' own; squares weigh. */
function symmetricFit(x: Tensor): Tensor {
  const given = step(() => ({ weights: x.square(), largest: extreme(x) }));
  const { weights, largest } = given;
  const fit = (share: number) => {
    const own = mx.clip(mx.round(x.multiply(inverse(largest).multiply(share))), -32, 31);
    const [xl, ll] = [sum(weights.multiply(x).multiply(own)), sum(weights.multiply(own.square()))];
    return { scale: xl.multiply(inverse(ll)), gain: xl.square().multiply(inverse(ll)) };
  };
  let best = step(() => fit(-32));
  for (let i = -9; i <= 9; i++) {
    if (i === 0) continue;
    const before = best;
    best = step(() => {
      const { scale, gain } = fit(-(32 + 0.1 * i));
      const isBetter = gain.greater(before.gain);
      return { scale: mx.where(isBetter, scale, before.scale), gain: mx.where(isBetter, gain, before.gain) };
    });
  }
  return best.scale;
}

export function packQ6K(x: Tensor): Tensor {
  const groups = grouped(x, 256).unflatten(-1, [16, 16]);
  const scales = symmetricFit(groups).squeeze(-1);
  const d = extreme(scales).divide(-128);
  const factors = mx.clip(mx.round(scales.multiply(inverse(d))), -128, 127);
  const steps = d.astype("float16").astype("float32").multiply(factors).expandDims(-1);
  const own = codes(mx.clip(mx.round(groups.multiply(inverse(steps))), -32, 31).add(32), 63).flatten(-2, -1);
  // Four quarters of each half of a block: their lower bits in pairs, their upper bits together.
  const quarters = own.unflatten(-1, [2, 4, 32]);
  const low = quarters.bitwiseAnd(15).unflatten(-2, [2, 2]);
  const [first, second] = low.split(2, -3).map((part) => part.flatten(-2, -1)) as [Tensor, Tensor];
  const places = mx.array([0, 2, 4, 6], "uint8", [4, 1]);
  const high = quarters.rightShift(4).leftShift(places).sum({ axis: -2 }).astype("uint8");
  const lowBytes = first.bitwiseOr(second.leftShift(4)).flatten(-3, -1);
  return beside(lowBytes, high.flatten(-2, -1), factors.astype("int8").view("uint8"), half(d));
}
