/**
 * Mamba-2's selective state space: h ← exp(Δ A) h + Δ B x, y = C h + D x. Over many tokens at once it is attention with
 * decaying weights, within blocks, and the state carries from block to block. Dao & Gu 2024, arXiv:2405.21060.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** Tokens that are attended to at once; the weights are this squared. */
const blockSize = 256;

export interface StateSpace {
  /** The logarithm of each head's decay rate, −A, (H). */
  A_log: Tensor;
  /** What of the input passes by, (H). */
  D: Tensor;
  /** Added to the step sizes ahead of softplus, (H). */
  dt_bias: Tensor;
  /** Bounds of the step sizes. */
  limits: readonly [min: number, max: number];
}

export interface StateSpaceInputs {
  /** (B, T, H, P) */
  x: Tensor;
  /** What of an input enters the state, (B, T, G, N); each of the G groups serves H / G heads. */
  B: Tensor;
  /** What is read from the state, (B, T, G, N). */
  C: Tensor;
  /** Step sizes, (B, T, H). */
  dt: Tensor;
}

/**
 * @param state (B, H, P, N) float32; null for zeros
 * @param own which tokens are a row's own, (B, T); what is not leaves the state as it is. Null for all
 * @returns y (B, T, H, P) and the state after the last token
 */
export function selectiveStateSpace(
  { x, B, C, dt }: StateSpaceInputs,
  { A_log, D, dt_bias, limits }: StateSpace,
  state: Tensor | null,
  own: Tensor | null,
): [y: Tensor, state: Tensor] {
  const heads = x.dim(2);
  const softplus = mx.logaddexp(dt.astype("float32").add(dt_bias), 0);
  const bounded = mx.clip(softplus, ...limits);
  const steps = own ? mx.where(own.expandDims(-1), bounded, 0) : bounded;
  const decays = steps.multiply(A_log.exp().negative().astype("float32"));
  const entering = x.multiply(steps.expandDims(-1));
  const [y, carried] = decayingAttention({ entering, B, C, decays }, state);
  return [
    y
      .astype(x.dtype)
      .add(x.multiply(D.reshape(1, 1, heads, 1)))
      .astype(x.dtype),
    carried,
  ];
}

export interface DecayingAttentionInputs {
  /** What enters the state, (B, T, H, P). */
  entering: Tensor;
  /** Where it enters, (B, T, G, N); each of the G groups serves H / G heads. */
  B: Tensor;
  /** What is read from the state, (B, T, G, N). */
  C: Tensor;
  /** The logarithm of what a token leaves of the state, (B, T, H). */
  decays: Tensor;
}

/**
 * h ← exp(decay) h + entering Bᵀ, y = h C, over all tokens: blocks of them at once.
 * @param state (B, H, P, N) float32; null for zeros
 * @returns y (B, T, H, P) and the state after the last token
 */
export function decayingAttention(
  { entering, B, C, decays }: DecayingAttentionInputs,
  state: Tensor | null,
): [y: Tensor, state: Tensor] {
  const made = mx.fast.recurrence({ queries: C, keys: B, values: entering, decay: decays, state });
  if (made) return made;
  const length = entering.dim(1);
  const ys: Tensor[] = [];
  let carried = state;
  for (let at = 0; at < length; at += blockSize) {
    const part = (tensor: Tensor) => mx.sliceAxis(tensor, 1, at, Math.min(at + blockSize, length));
    const [y, next] = block(part(entering), part(B), part(C), part(decays), carried);
    ys.push(y);
    carried = next;
  }
  return [ys.length === 1 ? ys[0]! : mx.concatenate(ys, { axis: 1 }), carried!];
}

/** entering (B, L, H, P), B and C (B, L, G, N), decays (B, L, H) → y (B, L, H, P), state */
function block(entering: Tensor, B: Tensor, C: Tensor, decays: Tensor, state: Tensor | null): [Tensor, Tensor] {
  const heads = entering.dim(2);
  const repeats = heads / B.dim(2);
  const perHead = (x: Tensor) => (repeats === 1 ? x : mx.repeat(x, repeats, { axis: 1 }));
  const byHead = decays.swapaxes(1, 2);
  const inputs = entering.swapaxes(1, 2);
  const b = perHead(B.swapaxes(1, 2));
  const c = perHead(C.swapaxes(1, 2));

  // How much of token j is left at token i: the decays between them, summed before they are exponentiated.
  const length = decays.dim(1);
  const between = mx.cumsum(mx.tril(mx.repeat(byHead.expandDims(-1), length, { axis: -1 }), -1), { axis: -2 });
  const left = between.exp();
  const weights = mx.tril(c.matmul(b.swapaxes(2, 3)).multiply(left));
  let y = weights.matmul(inputs);

  const leftAtEnd = mx.sliceAxis(left, 2, length - 1, length).swapaxes(2, 3);
  let next = inputs.multiply(leftAtEnd).swapaxes(2, 3).matmul(b);
  if (state) {
    const since = mx.cumsum(byHead, { axis: -1 }).exp().expandDims(-1);
    y = y.add(c.matmul(state.swapaxes(2, 3)).multiply(since));
    next = next.add(state.multiply(mx.sliceAxis(since, 2, length - 1, length)));
  }
  return [y.swapaxes(1, 2), next];
}
