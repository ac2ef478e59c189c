/**
 * The gated delta rule: each token lets a head's state fade, and writes its value over what the state had under its key:
 *
 *     S ← g S;  u = β (v − S k);  S ← S + u kᵀ;  y = S q
 *
 * Over many tokens at once the u of a block solve a triangular system, and the state carries from block to block.
 * Yang et al. 2024, arXiv:2412.06464.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** Tokens that are solved for at once, a power of two. */
const blockSize = 64;

export interface GatedDeltaInputs {
  /** What is read from the state, (B, T, Hk, Dk); each of its heads serves Hv / Hk of the values'. */
  q: Tensor;
  /** Where values are written, (B, T, Hk, Dk), of length one. */
  k: Tensor;
  /** What is written, (B, T, Hv, Dv). */
  v: Tensor;
  /** How much of the old is written over, β from 0 to 1, (B, T, Hv). */
  strength: Tensor;
  /** The logarithm of what is left of the state, log g ≤ 0, (B, T, Hv). */
  decay: Tensor;
}

/** x (…, D) stretched to a Euclidean length; ε = 10⁻⁶ is added to its own, squared. */
export function ofLength(x: Tensor, length: number): Tensor {
  const dims = x.dim(-1);
  return mx.fast.rmsNorm(x, null, 1e-6 / dims).multiply(length / Math.sqrt(dims));
}

/**
 * @param state (B, Hv, Dv, Dk) float32; null for zeros
 * @param own which tokens are a row's own, (B, T); what is not leaves the state as it is. Null for all
 * @returns y (B, T, Hv, Dv) in the dtype of q, and the state after the last token
 */
export function gatedDeltaRule(
  inputs: GatedDeltaInputs,
  state: Tensor | null,
  own: Tensor | null,
): [y: Tensor, state: Tensor] {
  const { q, k, v, strength, decay } = inputs;
  const [batch, length, heads, valueDims] = v.shape as [number, number, number, number];
  const onMetal = mx.defaultDevice() === "gpu" && mx.isAvailable("metal");
  const made = onMetal ? null : mx.fast.recurrence({ queries: q, keys: k, values: v, decay, strength, state, own });
  if (made) return made;
  const before = state ?? mx.zeros([batch, heads, valueDims, k.dim(-1)], "float32");
  const inOneCall = ({ q, k, v, strength, decay }: GatedDeltaInputs) =>
    mx.fast.gatedDeltaUpdate(q, k, v, decay.exp(), strength, { state: before, mask: own });
  // MLX's Metal kernel takes any number of tokens. Elsewhere it takes them one by one, and rounds to the inputs' dtype between.
  if (onMetal) return inOneCall(inputs);

  const wide = (x: Tensor) => x.astype("float32");
  const kept = (x: Tensor) => wide(own ? mx.where(own.expandDims(-1), x, 0) : x);
  const [y, after] =
    length === 1
      ? inOneCall({ q: wide(q), k: wide(k), v: wide(v), strength: wide(strength), decay: wide(decay) })
      : inBlocks({ q: wide(q), k: wide(k), v: wide(v), strength: kept(strength), decay: kept(decay) }, before);
  return [y.astype(q.dtype), after];
}

/** All in float32. Within, a tensor is (B, Hk, Hv / Hk or 1, blocks, tokens of a block, D). */
function inBlocks({ q, k, v, strength, decay }: GatedDeltaInputs, state: Tensor): [y: Tensor, state: Tensor] {
  const [batch, length, heads, valueDims] = v.shape as [number, number, number, number];
  const [, , keyHeads, keyDims] = k.shape as [number, number, number, number];
  const size = Math.min(blockSize, 2 ** Math.ceil(Math.log2(length)));
  const blocks = Math.ceil(length / size);
  const repeats = heads / keyHeads;
  const blocked = (x: Tensor, repeats: number) =>
    padded(x, blocks * size)
      .reshape(batch, blocks, size, keyHeads, repeats, -1)
      .transpose(0, 3, 4, 1, 2, 5);
  const queries = blocked(q, 1);
  const keys = blocked(k, 1);
  const strengths = blocked(strength, repeats);
  const decays = blocked(decay, repeats);

  // How much of token j is left at token i: the decays between them, summed before they are exponentiated.
  const between = mx.cumsum(mx.tril(mx.repeat(decays, size, { axis: -1 }), -1), { axis: -2 });
  const left = mx.tril(between.exp());
  const sinceStart = mx.cumsum(decays, { axis: -2 }).exp();
  const leftAtEnd = mx.sliceAxis(left, -2, size - 1, size).swapaxes(-1, -2);

  // u = solved β v − solved β g k · S: the state of the block's start is not known yet.
  const turned = keys.swapaxes(-1, -2);
  const overlap = mx.tril(keys.matmul(turned).multiply(left).multiply(strengths), -1);
  const solved = inverseOfUnit(overlap);
  const written = solved.matmul(blocked(v, repeats).multiply(strengths));
  const erased = solved.matmul(keys.multiply(sinceStart.multiply(strengths)));
  const weights = queries.matmul(turned).multiply(left);

  const parts = {
    written,
    reading: mx.concatenate([erased, queries.multiply(sinceStart)], { axis: -2 }),
    weights,
    keys: keys.multiply(leftAtEnd),
    fading: mx.sliceAxis(sinceStart, -2, size - 1, size),
  };
  const perBlock = Object.values(parts).map((part) => mx.unstack(part, { axis: 3 }));
  let carried = state.reshape(batch, keyHeads, repeats, valueDims, keyDims);
  const ys: Tensor[] = [];
  for (let i = 0; i < blocks; i++) {
    const [written, reading, weights, keys, fading] = perBlock.map((part) => part[i]!) as Five;
    const [erased, read] = reading.matmul(carried.swapaxes(-1, -2)).split(2, -2) as [Tensor, Tensor];
    const updates = written.subtract(erased);
    ys.push(read.add(weights.matmul(updates)));
    carried = carried.multiply(fading).add(updates.swapaxes(-1, -2).matmul(keys));
  }
  const y = mx
    .stack(ys, { axis: 3 })
    .transpose(0, 3, 4, 1, 2, 5)
    .reshape(batch, blocks * size, heads, valueDims);
  return [mx.sliceAxis(y, 1, 0, length), carried.reshape(state.shape)];
}

type Five = [Tensor, Tensor, Tensor, Tensor, Tensor];

/** x (B, T, …) with zeros after its last token: tokens that neither fade nor write. */
export function padded(x: Tensor, length: number): Tensor {
  const missing = length - x.dim(1);
  if (missing === 0) return x;
  const [batch, , ...rest] = x.shape as [number, number, ...number[]];
  return mx.concatenate([x, mx.zeros([batch, missing, ...rest], x.dtype)], { axis: 1 });
}

/**
 * (I + A)⁻¹ of strictly lower triangular A (…, L, L), L a power of two. Blocks on the diagonal that are inverted already are
 * joined two by two, which keeps to the precision of forward substitution: (X 0; A Y)⁻¹ has −Y⁻¹ A X⁻¹ in its corner.
 */
export function inverseOfUnit(a: Tensor): Tensor {
  const shape = a.shape.slice(0, -2);
  const length = a.dim(-1);
  let inverses = mx.ones([...shape, length, 1, 1]);
  for (let size = 1; size < length; size *= 2) {
    const pairs = length / size / 2;
    const [first, second] = inverses
      .reshape(...shape, pairs, 2, size, size)
      .split(2, -3)
      .map((half) => half.squeeze(-3)) as [Tensor, Tensor];
    const below = a
      .reshape(...shape, pairs, 2, size, pairs, 2, size)
      .at(mx.ellipsis, mx.slice(), 1, mx.slice(), mx.slice(), 0, mx.slice());
    const corners = mx.moveaxis(mx.diagonal(below, { axis1: -4, axis2: -2 }), -1, -3);
    const corner = second.matmul(corners).matmul(first).negative();
    const upper = mx.concatenate([first, mx.zeros(first.shape)], { axis: -1 });
    inverses = mx.concatenate([upper, mx.concatenate([corner, second], { axis: -1 })], { axis: -2 });
  }
  return inverses.squeeze(-3);
}
