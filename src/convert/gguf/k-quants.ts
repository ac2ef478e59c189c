/** K-quants: blocks of 256 whose groups have small factors, and minima, of one factor of the block. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { between, fields, groups, half, halved, packed, part, type Unpacked, unfolded, view } from "./blocks";

/** Eight factors and eight minima of 6 bits in 12 bytes: (…, B, 12) → (…, B, 8) each. */
function factorsAndMinima(bytes: Tensor): [factors: Tensor, minima: Tensor] {
  const [first, second, third] = bytes.split(3, -1) as [Tensor, Tensor, Tensor];
  const upper = (x: Tensor) => x.rightShift(6).leftShift(4);
  const joined = (low: Tensor, high: Tensor) => mx.concatenate([low, high], { axis: -1 }).astype("float32");
  return [
    joined(first.bitwiseAnd(63), third.bitwiseAnd(15).bitwiseOr(upper(first))),
    joined(second.bitwiseAnd(63), third.rightShift(4).bitwiseOr(upper(second))),
  ];
}

/** Groups of 32: code · (d · factor) − dmin · minimum. */
function affine(blocks: Tensor, codes: Tensor, bits: number): Unpacked {
  const [factors, minima] = factorsAndMinima(part(blocks, 4, 16));
  return {
    weight: packed(groups(codes, 32), bits),
    scales: half(blocks, 0).multiply(factors).flatten(-2, -1),
    biases: half(blocks, 2).multiply(minima).negative().flatten(-2, -1),
  };
}

/** (…, B, 32 n) bytes with two values each: 32 low ones, then their 32 high ones. */
const nibbles = (bytes: Tensor): Tensor => fields(bytes.unflatten(-1, [-1, 32]), [0, 4], 15).flatten(-3, -1);

/** (…, B, 64) bytes with four values each: 32 of the lowest bits, then 32 of the next, for each half. */
const quarters = (bytes: Tensor): Tensor => fields(bytes.unflatten(-1, [2, 32]), [0, 2, 4, 6], 3).flatten(-3, -1);

export const unpackQ4K = (blocks: Tensor): Unpacked => affine(blocks, nibbles(part(blocks, 16)), 4);

export function unpackQ5K(blocks: Tensor): Unpacked {
  const high = fields(part(blocks, 16, 48), [0, 1, 2, 3, 4, 5, 6, 7], 1).flatten(-2, -1);
  return affine(blocks, nibbles(part(blocks, 48)).bitwiseOr(high.leftShift(4)), 5);
}

/** Groups of 16: d · factor · (code − 32). */
export function unpackQ6K(blocks: Tensor): Unpacked {
  const low = fields(part(blocks, 0, 128).unflatten(-1, [2, 64]), [0, 4], 15).flatten(-3, -1);
  const high = fields(part(blocks, 128, 192).unflatten(-1, [2, 32]), [0, 2, 4, 6], 3).flatten(-3, -1);
  const numbers = low.bitwiseOr(high.leftShift(4)).astype("int32").subtract(32);
  const scales = half(blocks, 208).multiply(view(blocks, "int8", 192, 208).astype("float32"));
  return halved(groups(numbers, 16), scales.flatten(-2, -1), -32, 4, 8);
}

/** Groups of 16: d · factor · (code − 4). */
export function unpackQ3K(blocks: Tensor): Unpacked {
  const high = fields(part(blocks, 0, 32), [0, 1, 2, 3, 4, 5, 6, 7], 1).flatten(-2, -1);
  const numbers = quarters(part(blocks, 32, 96))
    .bitwiseOr(high.leftShift(2))
    .astype("int32")
    .subtract(4);
  const packedFactors = part(blocks, 96, 108);
  const low = fields(part(packedFactors, 0, 8), [0, 4], 15).flatten(-2, -1);
  const upper = fields(part(packedFactors, 8, 12), [0, 2, 4, 6], 3).flatten(-2, -1);
  const factors = low.bitwiseOr(upper.leftShift(4)).astype("float32").subtract(32);
  return halved(groups(numbers, 16), half(blocks, 108).multiply(factors).flatten(-2, -1), -4, 8, 6);
}

/** Groups of 16: code · (d · factor) − dmin · minimum. */
export function unpackQ2K(blocks: Tensor): Unpacked {
  const codes = groups(quarters(part(blocks, 16, 80)), 16).astype("float32");
  const own = part(blocks, 0, 16);
  const factors = half(blocks, 80).multiply(own.bitwiseAnd(15).astype("float32")).flatten(-2, -1);
  const minima = half(blocks, 82).multiply(own.rightShift(4).astype("float32")).flatten(-2, -1);
  const numbers = codes.multiply(factors.expandDims(-1)).subtract(minima.expandDims(-1));
  return between(groups(numbers, 32), 6);
}

/** One factor, of float32, for a block of signed bytes. */
export function unpackQ8K(blocks: Tensor): Unpacked {
  const codes = mx.bitwiseXor(part(blocks, 4, 260), 128);
  const scales = mx.repeat(view(blocks, "float32", 0, 4).flatten(-2, -1), 8, { axis: -1 });
  return { weight: packed(groups(codes, 32), 8), scales, biases: scales.multiply(-128) };
}

/** Three values, five to a byte as digits of 3, in 48 bytes, and four to a byte in 4 more. */
export function unpackTQ1(blocks: Tensor): Unpacked {
  const digits = (bytes: Tensor, powers: readonly number[]) =>
    bytes
      .expandDims(-2)
      .multiply(mx.array([...powers], "uint8", [powers.length, 1]))
      .flatten(-2, -1);
  const scaled = mx.concatenate(
    [
      digits(part(blocks, 0, 32), [1, 3, 9, 27, 81]),
      digits(part(blocks, 32, 48), [1, 3, 9, 27, 81]),
      digits(part(blocks, 48, 52), [1, 3, 9, 27]),
    ],
    { axis: -1 },
  );
  return ternary(scaled.astype("uint16").multiply(3).rightShift(8).astype("uint8"), half(blocks, 52));
}

export function unpackTQ2(blocks: Tensor): Unpacked {
  return ternary(fields(part(blocks, 0, 64).unflatten(-1, [2, 32]), [0, 2, 4, 6], 3).flatten(-3, -1), half(blocks, 64));
}

/** d · (code − 1), in two groups of 128. */
function ternary(codes: Tensor, d: Tensor): Unpacked {
  const scales = mx.repeat(d.flatten(-2, -1), 2, { axis: -1 });
  return { weight: packed(groups(codes, 128), 2), scales, biases: scales.negative() };
}

/** d or −d: a bit each, in order. Two bits of MLX's hold −1, 0 and 1. */
export const unpackQ1 = (blocks: Tensor): Unpacked =>
  aroundZero(unfolded(part(blocks, 2), [0, 1, 2, 3, 4, 5, 6, 7], 1).leftShift(1), half(blocks, 0));

/** d · (code − 1): two bits each, in order. */
export const unpackQ2 = (blocks: Tensor): Unpacked =>
  aroundZero(unfolded(part(blocks, 2), [0, 2, 4, 6], 3), half(blocks, 0));

/** d · (code − 1), a block to a group. */
function aroundZero(codes: Tensor, d: Tensor): Unpacked {
  const scales = d.flatten(-2, -1);
  return { weight: packed(codes, 2), scales, biases: scales.negative() };
}
