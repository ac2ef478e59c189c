/**
 * Mamba's selective scan: each channel has a state of its own, whose entries fade at rates of their own:
 *
 *     h ← exp(Δ A) h + Δ B x;  y = C h + D x
 *
 * Over many tokens at once it runs on two levels: within short groups of tokens, all groups side by side, and then from
 * group to group. Gu & Dao 2023, arXiv:2312.00752.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { padded } from "./gated-delta";

/** Tokens of a group, and groups at once: as few steps as there can be for so many tokens, whose states are all held. */
const [groupSize, groupsAtOnce] = [16, 16];

export interface SelectiveScanInputs {
  /** (B, T, C) */
  x: Tensor;
  /** Step sizes Δ, (B, T, C). */
  steps: Tensor;
  /** What of an input enters the state, (B, T, N). */
  B: Tensor;
  /** What is read from the state, (B, T, N). */
  C: Tensor;
}

export interface SelectiveScan {
  /** The logarithm of each entry's decay rate, −A, (C, N). */
  A_log: Tensor;
  /** What of the input passes by, (C). */
  D: Tensor;
}

/**
 * @param state (B, C, N) float32; null for zeros
 * @param own which tokens are a row's own, (B, T); what is not leaves the state as it is. Null for all
 * @returns y (B, T, C) in the dtype of x, and the state after the last token
 */
export function selectiveScan(
  { x, steps, B, C }: SelectiveScanInputs,
  { A_log, D }: SelectiveScan,
  state: Tensor | null,
  own: Tensor | null,
): [y: Tensor, state: Tensor] {
  const [batch, length, channels] = x.shape as [number, number, number];
  const wide = (tensor: Tensor) => tensor.astype("float32");
  const sizes = wide(own ? mx.where(own.expandDims(-1), steps, 0) : steps);
  const rates = wide(A_log).exp().negative();
  const inputs = { decays: sizes, entering: sizes.multiply(wide(x)), B: wide(B), C: wide(C) };

  let carried = state ? wide(state) : mx.zeros([batch, channels, rates.dim(1)], "float32");
  const ys: Tensor[] = [];
  const atOnce = groupSize * groupsAtOnce;
  for (let at = 0; at < length; at += atOnce) {
    const part = (tensor: Tensor) => mx.sliceAxis(tensor, 1, at, Math.min(at + atOnce, length));
    const [decays, entering, b, c] = Object.values(inputs).map(part) as [Tensor, Tensor, Tensor, Tensor];
    // (B, T, C, N)
    const states = scan(
      decays.expandDims(-1).multiply(rates),
      entering.expandDims(-1).multiply(b.expandDims(-2)),
      carried,
    );
    ys.push(states.matmul(c.expandDims(-1)).squeeze(-1));
    carried = mx.sliceAxis(states, 1, states.dim(1) - 1, states.dim(1)).squeeze(1);
  }
  const y = ys.length === 1 ? ys[0]! : mx.concatenate(ys, { axis: 1 });
  return [y.add(wide(D).multiply(wide(x))).astype(x.dtype), carried];
}

/**
 * All states of h ← exp(decay) h + entering, entry by entry.
 * @param decays (B, T, C) float32, as `entering`
 * @param state (B, C) float32; null for zeros
 * @returns (B, T, C)
 */
export function linearRecurrence(decays: Tensor, entering: Tensor, state: Tensor | null): Tensor {
  const [batch, length, channels] = decays.shape as [number, number, number];
  const states: Tensor[] = [];
  let carried = state ?? mx.zeros([batch, channels], "float32");
  const atOnce = groupSize * groupsAtOnce;
  for (let at = 0; at < length; at += atOnce) {
    const part = (tensor: Tensor) => mx.sliceAxis(tensor, 1, at, Math.min(at + atOnce, length));
    const made = scan(part(decays), part(entering), carried);
    states.push(made);
    carried = mx.sliceAxis(made, 1, made.dim(1) - 1, made.dim(1)).squeeze(1);
  }
  return states.length === 1 ? states[0]! : mx.concatenate(states, { axis: 1 });
}

/** All states of h ← exp(decay) h + entering: decays and entering (B, T, …), state (B, …) → (B, T, …). */
function scan(decays: Tensor, entering: Tensor, state: Tensor): Tensor {
  const [batch, length, ...rest] = decays.shape as [number, number, ...number[]];
  if (length === 1) return decays.exp().multiply(state.expandDims(1)).add(entering);
  const size = Math.min(groupSize, length);
  const groups = Math.ceil(length / size);
  const grouped = (x: Tensor) => padded(x, groups * size).reshape(batch, groups, size, ...rest);

  // Within groups, as if each began with zeros: token i of all groups in one step.
  const left = mx.cumsum(grouped(decays), { axis: 2 }).exp();
  const fades = mx.unstack(grouped(decays).exp(), { axis: 2 });
  const within = mx.unstack(grouped(entering), { axis: 2 });
  for (let i = 1; i < size; i++) within[i] = within[i - 1]!.multiply(fades[i]!).add(within[i]!);
  const own = mx.stack(within, { axis: 2 });

  // From group to group: what the group began with, as much as is left of it.
  const last = (x: Tensor) => mx.unstack(mx.sliceAxis(x, 2, size - 1, size).squeeze(2), { axis: 1 });
  const [ends, remains] = [last(own), last(left)];
  const starts = [state];
  for (let i = 1; i < groups; i++) starts.push(starts[i - 1]!.multiply(remains[i - 1]!).add(ends[i - 1]!));
  const states = own.add(left.multiply(mx.stack(starts, { axis: 1 }).expandDims(2)));
  return mx.sliceAxis(states.reshape(batch, groups * size, ...rest), 1, 0, length);
}
