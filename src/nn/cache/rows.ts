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
  try {
    return mx.quantize(x, how) as Packed;
  } catch (error) {
    if (!(error instanceof mx.MlxError)) throw error;
    throw new UserError(`the KV cache cannot be quantized so: ${error.message}`, {
      code: ExitCode.usage,
      hint: "--kv-bits takes 2, 3, 4, 5, 6 or 8, --kv-group-size 32, 64 or 128: a divisor of the size of a head.",
      cause: error,
    });
  }
}
