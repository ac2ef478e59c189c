/** Keys or values as attention gets them: plain, or packed in few bits. */
import { ExitCode, UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";

/** How a cache is packed. */
export interface KvQuantization {
  groupSize: number;
  bits: number;
}

/** Packed (B, Hkv, S, D · bits / 32), scales and biases (B, Hkv, S, D / groupSize). */
export type Packed = [packed: Tensor, scales: Tensor, biases: Tensor];

/** Keys or values that stay packed until they are multiplied. */
export class QuantizedRows {
  constructor(
    readonly parts: Packed,
    readonly how: KvQuantization,
  ) {}
}

/** Keys or values of all tokens, plain or packed. */
export type Rows = Tensor | QuantizedRows;

/** @throws UserError where MLX has no such packing, or a head is no multiple of the group */
export function packRows(x: Tensor, how: KvQuantization): Packed {
  checkKvQuantization(how);
  const size = x.dim(-1);
  if (size % how.groupSize !== 0) {
    throw refused(`a head of this model has ${size} features, which are no whole groups of ${how.groupSize}`);
  }
  return mx.quantize(x, how) as Packed;
}

/** @throws UserError for bits or a group size that no cache can be packed with */
export function checkKvQuantization({ bits, groupSize }: KvQuantization): void {
  const { bits: allBits, groupSizes } = mx.packings.affine;
  if (!allBits.includes(bits)) throw refused(`there is no packing in ${bits} bits`);
  if (!groupSizes.includes(groupSize)) throw refused(`there is no packing in groups of ${groupSize}`);
}

const refused = (problem: string) =>
  new UserError(`the KV cache cannot be quantized so: ${problem}`, {
    code: ExitCode.usage,
    hint: "--kv-bits takes 2, 3, 4, 5, 6 or 8, --kv-group-size 32, 64 or 128: a divisor of the size of a head.",
  });
