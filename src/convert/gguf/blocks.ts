/** Bits of GGUF's blocks: taken apart, and packed as MLX's words. Tensors of blocks are (…, B, bytes) uint8. */
import type { Dtype, Tensor } from "../../mlx";
import * as mx from "../../mlx";

/** A tensor in MLX's form: with scales and biases where it stays packed. */
export interface Unpacked {
  weight: Tensor;
  scales?: Tensor;
  biases?: Tensor;
}

/** Bytes [from, to) of every block. */
export const part = (blocks: Tensor, from: number, to?: number): Tensor => blocks.at(mx.ellipsis, mx.slice(from, to));

/** The same as numbers of a wider type, (…, B, n). */
export const view = (blocks: Tensor, dtype: Dtype, from: number, to?: number): Tensor =>
  mx.contiguous(part(blocks, from, to)).view(dtype);

/** A float16 of every block, as float32: (…, B, 1) */
export const half = (blocks: Tensor, from: number): Tensor => view(blocks, "float16", from, from + 2).astype("float32");

/**
 * Fields of the same width at several places of each number: (…, n) → (…, places, n).
 * @param shifts where they begin, in bits @param mask what is kept of each
 */
export function fields(x: Tensor, shifts: readonly number[], mask: number): Tensor {
  const places = mx.array([...shifts], x.dtype, [shifts.length, 1]);
  return x.expandDims(-2).rightShift(places).bitwiseAnd(mask);
}

/** The same side by side for each number: (…, n) → (…, n · places), a number's fields one after the other. */
export function unfolded(x: Tensor, shifts: readonly number[], mask: number): Tensor {
  const places = mx.array([...shifts], x.dtype);
  return x.expandDims(-1).rightShift(places).bitwiseAnd(mask).flatten(-2, -1);
}

/** (…, B, n) → (…, B · n / width, width): the groups of a row. */
export const groups = (x: Tensor, width: number): Tensor =>
  x.reshape(...x.shape.slice(0, -2), (x.dim(-2) * x.dim(-1)) / width, width);

/** How many codes are packed together, by their bits. */
const together: Readonly<Record<number, number>> = { 2: 4, 4: 2, 5: 8, 6: 4 };

/**
 * Codes (…, G, width) uint8 as MLX's words, (…, G · width · bits / 32) uint32: one stream of bits, the lowest first.
 */
export function packed(codes: Tensor, bits: number): Tensor {
  const rows = codes.flatten(-2, -1);
  if (bits === 8) return words(rows);
  const count = together[bits]!;
  const at = (i: number) => rows.at(mx.ellipsis, mx.slice(i, undefined, count));
  if (bits === 2 || bits === 4) {
    const parts = Array.from({ length: count }, (_, i) => at(i).leftShift(bits * i));
    return words(parts.reduce((sum, one) => sum.bitwiseOr(one)));
  }
  const wide = (i: number) => at(i).astype("uint32");
  const four = (first: number) =>
    [0, 1, 2, 3].map((i) => wide(first + i).leftShift(bits * i)).reduce((sum, one) => sum.bitwiseOr(one));
  const byte = (x: Tensor, shift: number) => x.rightShift(shift).bitwiseAnd(255).astype("uint8");
  const low = four(0);
  if (bits === 6) return words(interleaved([byte(low, 0), byte(low, 8), byte(low, 16)]));
  const high = four(4);
  const middle = low.rightShift(16).bitwiseOr(high.leftShift(4));
  return words(interleaved([byte(low, 0), byte(low, 8), byte(middle, 0), byte(high, 4), byte(high, 12)]));
}

const interleaved = (parts: readonly Tensor[]) => mx.stack([...parts], { axis: -1 }).flatten(-2, -1);

/** (…, bytes) uint8 → (…, bytes / 4) uint32 */
export const words = (bytes: Tensor): Tensor => mx.contiguous(bytes).view("uint32");

/**
 * Whole numbers with a factor for each group: code · scale + first · scale.
 * @param numbers (…, G, width), any integer type @param scales (…, G) @param first the least that a number may be
 */
export function whole(numbers: Tensor, scales: Tensor, first: number, bits: number): Unpacked {
  const codes = numbers.astype("int32").subtract(first).astype("uint8");
  return { weight: packed(codes, bits), scales, biases: scales.multiply(first) };
}

/**
 * Whole numbers with a factor for each half of a group, as whole steps of the larger factor's share: the half with the larger
 * factor loses nothing, the other is rounded to steps that are finer than the larger ones by `share`.
 * @param numbers (…, 2 G, width / 2) @param scales (…, 2 G) @param first the least that a number may be
 */
export function halved(numbers: Tensor, scales: Tensor, first: number, share: number, bits: number): Unpacked {
  const pairs = scales.reshape(...scales.shape.slice(0, -1), -1, 2);
  const size = pairs.abs();
  const isSecond = part(size, 1).greater(part(size, 0, 1));
  const larger = mx.where(isSecond, part(pairs, 1), part(pairs, 0, 1));
  const step = larger.divide(share);
  const ratio = mx.where(step.equal(0), 0, pairs.divide(mx.where(step.equal(0), 1, step)));
  const width = numbers.dim(-1);
  const values = numbers.astype("float32").reshape(...pairs.shape, width);
  const steps = mx.round(values.multiply(ratio.expandDims(-1))).flatten(-2, -1);
  const least = first * share;
  const codes = mx.clip(steps.subtract(least), 0, 2 ** bits - 1).astype("uint8");
  const scale = step.squeeze(-1);
  return { weight: packed(codes, bits), scales: scale, biases: scale.multiply(least) };
}

/** Any numbers (…, G, width) float32 as steps between the least and the greatest of each group. */
export function between(numbers: Tensor, bits: number): Unpacked {
  const least = numbers.min({ axis: -1, keepdims: true });
  const step = numbers
    .max({ axis: -1, keepdims: true })
    .subtract(least)
    .divide(2 ** bits - 1);
  const codes = mx.round(numbers.subtract(least).divide(mx.where(step.equal(0), 1, step))).astype("uint8");
  return { weight: packed(codes, bits), scales: step.squeeze(-1), biases: least.squeeze(-1) };
}
