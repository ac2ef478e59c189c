/**
 * Values rounded as if they were packed in few bits, a block with one scale, and unpacked again: models that were trained so
 * expect it. Gradients pass as if nothing were rounded. Numbers of fewer features than whole blocks stay as they are.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** The largest of E4M3's and of E2M1's numbers. */
const [largest8, largest4] = [448, 6];

/** The least that is rounded up to a whole scale in eight bits. */
const least8 = 1e-4;

/** x (…, D) as E4M3, with a power of two to each block of 32. */
export const coarse8 = (x: Tensor): Tensor =>
  inBlocks(x, 32, (blocks) => {
    const scale = powerAbove(largestOf(blocks, least8).divide(largest8));
    const scaled = mx.clip(blocks.divide(scale), -largest8, largest8);
    return mx.fromFp8(mx.toFp8(scaled), "float32").multiply(scale);
  });

/** x (…, D) as E2M1, with a power of two to each block of 32. */
export const coarse4 = (x: Tensor): Tensor =>
  inBlocks(x, 32, (blocks) => {
    const scale = powerAbove(largestOf(blocks, largest4 * 2 ** -126).divide(largest4));
    return nearestE2m1(blocks.divide(scale)).multiply(scale);
  });

/** x (…, D) as E2M1, with an E4M3 number to each block of 16. */
export const coarse4ByE4m3 = (x: Tensor): Tensor =>
  inBlocks(x, 16, (blocks) => {
    const scale = mx.fromFp8(mx.toFp8(largestOf(blocks, largest4 * 2 ** -9).divide(largest4)), "float32");
    return nearestE2m1(blocks.divide(scale)).multiply(scale);
  });

function inBlocks(x: Tensor, size: number, round: (blocks: Tensor) => Tensor): Tensor {
  if (x.dim(-1) % size !== 0) return x;
  const wide = x.astype("float32");
  const rounded = mx.stopGradient(round(wide.unflatten(-1, [-1, size])).flatten(-2));
  // The difference is zero, but for its gradient.
  return rounded.add(wide.subtract(mx.stopGradient(wide))).astype(x.dtype);
}

const largestOf = (blocks: Tensor, least: number) => blocks.abs().max({ axis: -1, keepdims: true }).maximum(least);

const powerAbove = (x: Tensor) => mx.power(2, mx.log2(x).ceil());

/** The nearest of 0, ½, 1, 1½, 2, 3, 4 and 6, with its sign; halfway the even one. */
function nearestE2m1(x: Tensor): Tensor {
  const bounded = mx.clip(x, -largest4, largest4);
  const size = bounded.abs();
  const step = mx.where(size.less(2), 0.5, mx.where(size.less(4), 1, 2));
  return bounded.divide(step).round().multiply(step);
}
