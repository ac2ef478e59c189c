/**
 * The delta rule where each channel of the state fades at a rate of its own:
 *
 *     S ← S diag(w);  S ← S + (S a) bᵀ + v kᵀ;  y = S r
 *
 * Over many tokens at once the S a of a block solve a triangular system, and the state carries from block to block.
 * Peng et al. 2025 (RWKV-7), arXiv:2503.14456; with a = −β k and b = k it is Kimi's, arXiv:2510.26692.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { inverseOfUnit, padded } from "./gated-delta";

/** Tokens that are solved for at once, a power of two. */
const blockSize = 64;

export interface ChannelDeltaInputs {
  /** What is read from the state, (B, T, H, Dk). */
  r: Tensor;
  /** Where values are written, (B, T, H, Dk). */
  k: Tensor;
  /** What is written, (B, T, H, Dv). */
  v: Tensor;
  /** What of the faded state is read for a change of it, (B, T, H, Dk). */
  a: Tensor;
  /** Where that is written, (B, T, H, Dk); where values are, if absent. */
  b?: Tensor;
  /** The logarithm of what is left of each channel, log w ≤ 0, (B, T, H, Dk). */
  decay: Tensor;
}

/**
 * @param state (B, H, Dv, Dk) float32; null for zeros
 * @param own which tokens are a row's own, (B, T); what is not leaves the state as it is. Null for all
 * @returns y (B, T, H, Dv) in the dtype of r, and the state after the last token
 */
export function channelDeltaRule(
  { r, k, v, a, b, decay }: ChannelDeltaInputs,
  state: Tensor | null,
  own: Tensor | null,
): [y: Tensor, state: Tensor] {
  const made = mx.fast.recurrence({ queries: r, keys: k, values: v, readers: a, changes: b, decay, state, own });
  if (made) return made;
  const [batch, length, heads, valueDims] = v.shape as [number, number, number, number];
  const wide = (x: Tensor) => x.astype("float32");
  const kept = (x: Tensor) => wide(own ? mx.where(own.expandDims([-1, -2]), x, 0) : x);
  const before = state ? wide(state) : mx.zeros([batch, heads, valueDims, k.dim(-1)], "float32");
  const inputs = { r: wide(r), k: wide(k), v: kept(v), a: kept(a), b: b && wide(b), decay: kept(decay) };
  const [y, after] = length === 1 ? oneToken(inputs, before) : inBlocks(inputs, before);
  return [y.astype(r.dtype), after];
}

/** All in float32. */
function oneToken({ r, k, v, a, b, decay }: ChannelDeltaInputs, state: Tensor): [y: Tensor, state: Tensor] {
  const column = (x: Tensor) => x.squeeze(1).expandDims(-1);
  const row = (x: Tensor) => x.squeeze(1).expandDims(-2);
  const faded = state.multiply(row(decay).exp());
  const read = faded.matmul(column(a));
  const next = b
    ? faded.add(read.multiply(row(b))).add(column(v).multiply(row(k)))
    : faded.add(read.add(column(v)).multiply(row(k)));
  return [next.matmul(column(r)).squeeze(-1).expandDims(1), next];
}

/** All in float32. Within, a tensor is (B, H, blocks, tokens of a block, D). */
function inBlocks({ r, k, v, a, b, decay }: ChannelDeltaInputs, state: Tensor): [y: Tensor, state: Tensor] {
  const [batch, length, heads, valueDims] = v.shape as [number, number, number, number];
  const size = Math.min(blockSize, 2 ** Math.ceil(Math.log2(length)));
  const blocks = Math.ceil(length / size);
  const blocked = (x: Tensor) =>
    padded(x, blocks * size)
      .reshape(batch, blocks, size, heads, -1)
      .transpose(0, 3, 1, 2, 4);
  const [readers, queries, keys, values, decays] = [a, r, k, v, decay].map(blocked) as Five;
  const changes = b ? blocked(b) : keys;

  const writers = b ? [changes, keys] : [keys];
  const products = decayedProducts(mx.stack([readers, queries], { axis: -2 }), mx.stack(writers, { axis: -2 }), decays);
  const of = (reader: 0 | 1, writer: number) => products.at(mx.ellipsis, reader, mx.slice(), writer);
  const ofValues = writers.length - 1;

  const sinceStart = mx.cumsum(decays, { axis: -2 }).exp();
  const untilEnd = mx.cumsum(decays, { axis: -2, reverse: true, inclusive: false }).exp();

  // S a = written + solved a · S: the state of the block's start is not known yet.
  const solved = inverseOfUnit(mx.tril(of(0, 0), -1).negative());
  const parts = {
    written: solved.matmul(mx.tril(of(0, ofValues), -1).matmul(values)),
    reading: mx.concatenate([solved.matmul(readers.multiply(sinceStart)), queries.multiply(sinceStart)], { axis: -2 }),
    weights: of(1, 0),
    plain: of(1, ofValues).matmul(values),
    changes: changes.multiply(untilEnd),
    entering: values.swapaxes(-1, -2).matmul(keys.multiply(untilEnd)),
    fading: mx.sliceAxis(sinceStart, -2, size - 1, size),
  };
  const perBlock = Object.values(parts).map((part) => mx.unstack(part, { axis: 2 }));
  let carried = state;
  const ys: Tensor[] = [];
  for (let i = 0; i < blocks; i++) {
    const [written, reading, weights, plain, changes, entering, fading] = perBlock.map((part) => part[i]!) as Seven;
    const [read, queried] = reading.matmul(carried.swapaxes(-1, -2)).split(2, -2) as [Tensor, Tensor];
    const found = written.add(read);
    ys.push(queried.add(plain).add(weights.matmul(found)));
    carried = carried.multiply(fading).add(entering).add(found.swapaxes(-1, -2).matmul(changes));
  }
  const y = mx
    .stack(ys, { axis: 2 })
    .transpose(0, 2, 3, 1, 4)
    .reshape(batch, blocks * size, heads, valueDims);
  return [mx.sliceAxis(y, 1, 0, length), carried];
}

type Five = [Tensor, Tensor, Tensor, Tensor, Tensor];
type Seven = [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];

/**
 * What is between two tokens of a block, Σ_d x_i w_{j+1} … w_i y_j for j ≤ i and zero above: x (…, L, P, D) and y (…, L, Q, D),
 * decay (…, L, D), L a power of two → (…, L, P, L, Q). Halves of a block meet at its middle, then those of each half, and so
 * on: so decays are only multiplied, never divided by, and none overflows however fast a channel fades.
 */
function decayedProducts(x: Tensor, y: Tensor, decay: Tensor): Tensor {
  const [length, readers, dims] = x.shape.slice(-3) as [number, number, number];
  const writers = y.dim(-2);
  const shape = decay.shape.slice(0, -2);
  const half = (tensor: Tensor, size: number, which: 0 | 1) => {
    const pairs = length / size / 2;
    const rest = tensor.shape.slice(shape.length + 1);
    const halves = tensor.reshape(...shape, pairs, 2, size, ...rest);
    return mx.sliceAxis(halves, shape.length + 1, which, which + 1).squeeze(shape.length + 1);
  };
  let products = x.matmul(y.swapaxes(-1, -2));
  for (let size = 1; size < length; size *= 2) {
    const pairs = length / size / 2;
    const since = mx
      .cumsum(half(decay, size, 1), { axis: -2 })
      .exp()
      .expandDims(-2);
    const until = mx
      .cumsum(half(decay, size, 0), { axis: -2, reverse: true, inclusive: false })
      .exp()
      .expandDims(-2);
    const after = half(x, size, 1)
      .multiply(since)
      .reshape(...shape, pairs, size * readers, dims);
    const before = half(y, size, 0)
      .multiply(until)
      .reshape(...shape, pairs, size * writers, dims);
    const corner = after.matmul(before.swapaxes(-1, -2));
    const [first, second] = products
      .reshape(...shape, pairs, 2, size * readers, size * writers)
      .split(2, -3)
      .map((one) => one.squeeze(-3)) as [Tensor, Tensor];
    const upper = mx.concatenate([first, mx.zeros(first.shape)], { axis: -1 });
    products = mx.concatenate([upper, mx.concatenate([corner, second], { axis: -1 })], { axis: -2 });
  }
  return products.reshape(...shape, length, readers, length, writers);
}
