/** Whole numbers in few bits each, as MLX's affine weights hold them. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** So many codes fill whole words whatever their width. */
const codesInBlock = 32;

/**
 * codes (…, K) below 2^bits → (…, K · bits / 32) uint32: a stream of bits, the lowest of the first code first. K must be a
 * multiple of 32.
 */
export function packCodes(codes: Tensor, bits: number): Tensor {
  const K = codes.dim(-1);
  const blocks = codes.astype("uint32").unflatten(-1, [K / codesInBlock, codesInBlock]);
  const words = Array.from({ length: bits }, (_, word) => {
    const begin = word * 32;
    const first = Math.floor(begin / bits);
    const last = Math.ceil((begin + 32) / bits);
    // Bits above a word's end fall away in shifting left, those below its begin in shifting right.
    const places = Array.from({ length: last - first }, (_, i) => (first + i) * bits - begin);
    const shifts = (sign: number) =>
      mx.array(
        places.map((place) => Math.max(0, sign * place)),
        "uint32",
      );
    const part = blocks.at(mx.ellipsis, mx.slice(first, last));
    return part.rightShift(shifts(-1)).leftShift(shifts(1)).sum({ axis: -1 });
  });
  return mx.stack(words, { axis: -1 }).flatten(-2, -1);
}
