/** IQ types: groups are vectors of a grid, with signs and small factors; or values of a curve of sixteen. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { between, fields, groups, half, halved, part, type Unpacked, unfolded, view, whole } from "./blocks";

/** The types' numbers in files, by which their grids are known. */
const grids = { iq2xxs: 16, iq2xs: 17, iq3xxs: 18, iq1s: 19, iq3s: 21, iq2s: 22 } as const;

/** Vectors by their numbers: (…, n) → (…, n · width) int8. */
const chosen = (grid: number, numbers: Tensor): Tensor =>
  mx.take(mx.blockVectors(grid), numbers.astype("uint32"), { axis: 0 }).flatten(-2, -1);

const byte = [0, 1, 2, 3, 4, 5, 6, 7];

/** A bit each, 1 for a minus: (…, n) bytes → (…, 8 n) of 1 and −1. */
const signs = (bytes: Tensor): Tensor => unfolded(bytes, byte, 1).astype("int8").multiply(-2).add(1);

/** Seven signs, and an eighth that makes their number even: (…, n) with 7 bits each → (…, n) bytes. */
function evenSigns(bits: Tensor): Tensor {
  const halves = mx.bitwiseXor(bits, bits.rightShift(4));
  const quarters = mx.bitwiseXor(halves, halves.rightShift(2));
  const parity = mx.bitwiseXor(quarters, quarters.rightShift(1)).bitwiseAnd(1);
  return bits.bitwiseOr(parity.leftShift(7)).astype("uint8");
}

const float = (x: Tensor) => x.astype("float32");

/** Factors of groups on the last axis: d · (number + 0.5) · share, (…, B, n) → (…, B · n) */
const shares = (d: Tensor, numbers: Tensor, share: number): Tensor =>
  d.multiply(float(numbers).add(0.5)).multiply(share).flatten(-2, -1);

/** Eight words of 32 bits, each four numbers of 7 bits and a factor of 4: (…, B, 8) → signs (…, B, 256), factors (…, B, 8). */
function signsAndFactors(words: Tensor): [signs: Tensor, factors: Tensor] {
  return [signs(evenSigns(unfolded(words, [0, 7, 14, 21], 127))), words.rightShift(28)];
}

export function unpackIQ2XXS(blocks: Tensor): Unpacked {
  const pairs = view(blocks, "uint32", 2, 66).unflatten(-1, [8, 2]);
  const [numbers, rest] = pairs.split(2, -1).map((x) => x.squeeze(-1)) as [Tensor, Tensor];
  const [own, factors] = signsAndFactors(rest);
  const values = chosen(grids.iq2xxs, unfolded(numbers, [0, 8, 16, 24], 255)).multiply(own);
  return whole(groups(values, 32), shares(half(blocks, 0), factors, 0.25), -128, 8);
}

export function unpackIQ3XXS(blocks: Tensor): Unpacked {
  const [own, factors] = signsAndFactors(view(blocks, "uint32", 66, 98));
  // All values are even.
  const values = chosen(grids.iq3xxs, part(blocks, 2, 66))
    .multiply(own)
    .astype("int32")
    .floorDivide(2);
  return whole(groups(values, 32), shares(half(blocks, 0), factors, 0.5).multiply(2), -32, 6);
}

/** Groups of 16 with a factor of 4 bits each. */
const bySixteen = (blocks: Tensor, values: Tensor, factors: Tensor): Unpacked =>
  halved(groups(values, 16), shares(half(blocks, 0), unfolded(factors, [0, 4], 15), 0.25), -64, 2, 8);

export function unpackIQ2XS(blocks: Tensor): Unpacked {
  const numbers = view(blocks, "uint16", 2, 66);
  const own = signs(evenSigns(numbers.rightShift(9)));
  return bySixteen(blocks, chosen(grids.iq2xs, numbers.bitwiseAnd(511)).multiply(own), part(blocks, 66, 74));
}

export function unpackIQ2S(blocks: Tensor): Unpacked {
  const high = unfolded(part(blocks, 66, 74), [0, 2, 4, 6], 3)
    .astype("uint16")
    .leftShift(8);
  const numbers = part(blocks, 2, 34).astype("uint16").bitwiseOr(high);
  return bySixteen(blocks, chosen(grids.iq2s, numbers).multiply(signs(part(blocks, 34, 66))), part(blocks, 74, 82));
}

/** Values are odd: 2 · code − 15, so that four bits hold them. */
export function unpackIQ3S(blocks: Tensor): Unpacked {
  const high = unfolded(part(blocks, 66, 74), byte, 1)
    .astype("uint16")
    .leftShift(8);
  const numbers = part(blocks, 2, 66).astype("uint16").bitwiseOr(high);
  const values = chosen(grids.iq3s, numbers).multiply(signs(part(blocks, 74, 106)));
  const factors = float(unfolded(part(blocks, 106, 110), [0, 4], 15))
    .multiply(2)
    .add(1);
  const scales = half(blocks, 0).multiply(factors).flatten(-2, -1);
  const codes = values.add(15).rightShift(1);
  const { weight } = whole(groups(codes, 32), scales, 0, 4);
  return { weight, scales: scales.multiply(2), biases: scales.multiply(-15) };
}

/** How far the values of IQ1 lie beside −1, 0 and 1. */
const delta = 0.125;

export function unpackIQ1S(blocks: Tensor): Unpacked {
  const own = view(blocks, "uint16", 34, 50);
  const high = unfolded(own, [0, 3, 6, 9], 7).leftShift(8);
  const values = chosen(grids.iq1s, part(blocks, 2, 34).astype("uint16").bitwiseOr(high));
  const factors = float(own.rightShift(12).bitwiseAnd(7)).multiply(2).add(1);
  const scales = half(blocks, 0).multiply(factors).flatten(-2, -1);
  const shift = mx.where(own.rightShift(15).equal(0), delta, -delta).flatten(-2, -1);
  const { weight } = whole(groups(values, 32), scales, -1, 2);
  return { weight, scales, biases: scales.multiply(shift.subtract(1)) };
}

/** The factor of a block is in the upper bits of its groups' factors; shifts are by eights, factors by sixteens. */
export function unpackIQ1M(blocks: Tensor): Unpacked {
  const own = view(blocks, "uint16", 48, 56);
  const bits = fields(own.rightShift(12), [0], 15).squeeze(-2);
  const [a, b, c, d] = bits.split(4, -1) as [Tensor, Tensor, Tensor, Tensor];
  const joined = a.bitwiseOr(b.leftShift(4)).bitwiseOr(c.leftShift(8)).bitwiseOr(d.leftShift(12));
  const scale = mx.contiguous(joined).view("float16").astype("float32");
  const factors = float(unfolded(own, [0, 3, 6, 9], 7))
    .multiply(2)
    .add(1);
  const high = unfolded(part(blocks, 32, 48), [0, 4], 15);
  const numbers = part(blocks, 0, 32).astype("uint16").bitwiseOr(high.bitwiseAnd(7).astype("uint16").leftShift(8));
  const values = float(chosen(grids.iq1s, numbers)).unflatten(-1, [32, 8]);
  const shift = mx.where(high.bitwiseAnd(8).equal(0), delta, -delta).expandDims(-1);
  const shifted = values.add(shift).flatten(-2, -1).unflatten(-1, [16, 16]);
  const scaled = shifted.multiply(scale.multiply(factors).expandDims(-1)).flatten(-2, -1);
  return between(groups(scaled, 32), 8);
}

/** A curve of sixteen values. */
const curve = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/** (…, B, 16 n) bytes: sixteen low values, then their sixteen high ones → (…, 32 n) of the curve. */
function onCurve(bytes: Tensor): Tensor {
  const codes = fields(bytes.unflatten(-1, [-1, 16]), [0, 4], 15).flatten(-3, -1);
  return mx.take(mx.array(curve, "int32"), codes.astype("uint32"));
}

export const unpackIQ4NL = (blocks: Tensor): Unpacked =>
  whole(groups(onCurve(part(blocks, 2)), 32), half(blocks, 0).flatten(-2, -1), -128, 8);

export function unpackIQ4XS(blocks: Tensor): Unpacked {
  const low = unfolded(part(blocks, 4, 8), [0, 4], 15);
  const high = unfolded(view(blocks, "uint16", 2, 4), [0, 2, 4, 6, 8, 10, 12, 14], 3).astype("uint8");
  const factors = float(low.bitwiseOr(high.leftShift(4))).subtract(32);
  const scales = half(blocks, 0).multiply(factors).flatten(-2, -1);
  return whole(groups(onCurve(part(blocks, 8)), 32), scales, -128, 8);
}
