/**
 * Attention to blocks of keys: each token sees the blocks with the highest scores, the nearest among them. As in MiniMax M3;
 * compare Yuan et al. 2025, arXiv:2502.11089, section 3.3.2.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Mask } from "./masks";
import { causalMask } from "./masks";
import { highest } from "./routing";

export interface BlockSelection {
  /** Keys in a block. */
  blockSize: number;
  /** How many blocks a token sees. */
  topK: number;
  /** How many of the nearest, its own included, are always among them. */
  local: number;
}

/**
 * The mask (B, H, T, S) of the keys in chosen blocks, by scores (B, H, T, S) of the keys and within the mask of all.
 * @param offset how many tokens precede the T, one for all or one for each of B. Blocks are counted from a row's own first
 * token, whatever padding stands before it.
 */
export function selectBlocks(scores: Tensor, mask: Mask, offset: number | Tensor, choice: BlockSelection): Tensor {
  const { blockSize, topK, local } = choice;
  const [length, total] = [scores.dim(2), scores.dim(3)];
  const visible = mask instanceof mx.Tensor ? mask : causalMask(length, { offset: total - length });
  const seen = mx.where(visible, scores, Number.NEGATIVE_INFINITY);
  const before = typeof offset === "number" ? null : mx.subtract(total - length, offset);

  const count = Math.ceil(total / blockSize);
  const own = before ? rolled(seen, before) : seen;
  const whole = padEnd(own, count * blockSize - total);
  const best = whole.unflatten(-1, [count, blockSize]).max({ axis: -1 });
  const first = typeof offset === "number" ? offset : offset.expandDims([1, 2, 3]);
  const block = mx.arange(length).expandDims(-1).add(first).floorDivide(blockSize);
  const ids = mx.arange(count);
  const isNear = ids.lessEqual(block).bitwiseAnd(ids.greater(block.subtract(local)));
  const chosen = highest(mx.where(isNear, Number.POSITIVE_INFINITY, best), topK);

  const none = mx.zeros(best.shape, "bool");
  const isChosen = mx.putAlongAxis(none, chosen, mx.array(true), { axis: -1 });
  const keys = mx.sliceAxis(mx.repeat(isChosen, blockSize, { axis: -1 }), -1, 0, total);
  return (before ? rolled(keys, before.negative()) : keys).bitwiseAnd(visible);
}

/** x (B, H, T, S) with each row's keys moved to the left by its own shift, (B); the first ones come in at the end. */
function rolled(x: Tensor, shifts: Tensor): Tensor {
  const total = x.dim(3);
  const places = mx
    .arange(total)
    .add(shifts.expandDims([1, 2, 3]))
    .remainder(total);
  return x.takeAlongAxis(mx.broadcastTo(places, x.shape), -1);
}

const padEnd = (x: Tensor, count: number) =>
  count === 0
    ? x
    : mx.concatenate([x, mx.full([...x.shape.slice(0, 3), count], Number.NEGATIVE_INFINITY)], { axis: -1 });
