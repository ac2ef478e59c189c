/** Values at which parsers and arithmetic turn, and bytes changed by a seed. */
import { type Dice, pick } from "./dice";

/** Sizes at which arithmetic turns: zeros, powers of two and their neighbours, the ends of integer types. */
export const edgeSizes = [
  0,
  1,
  2,
  3,
  7,
  15,
  16,
  17,
  31,
  32,
  33,
  48,
  63,
  64,
  65,
  96,
  128,
  255,
  256,
  1000,
  2 ** 16,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
];

/** Numbers that overflow, vanish or are none. */
export const edgeNumbers = [
  0,
  -0,
  1,
  -1,
  0.5,
  1e-5,
  1e-45,
  1e-300,
  1e30,
  1e300,
  -1e300,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
];

/** Bytes with a few of them changed: turned, replaced, cut out, doubled. */
export function mutateBytes(bytes: Uint8Array, roll: Dice): Uint8Array {
  let changed: Uint8Array = bytes.slice();
  for (let left = 1 + roll(3); left > 0 && changed.length > 1; left--) {
    const at = roll(changed.length);
    const length = 1 + roll(Math.min(32, changed.length - at));
    switch (roll(4)) {
      case 0:
        changed[at]! ^= 1 << roll(8);
        break;
      case 1:
        changed.fill(pick(roll, [0, 1, 0x7f, 0x80, 0xff]), at, at + length);
        break;
      case 2:
        changed = joined(changed.subarray(0, at), changed.subarray(at + length));
        break;
      default:
        changed = joined(changed.subarray(0, at + length), changed.subarray(at));
    }
  }
  return changed;
}

export const joined = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
