/** What recurrent layers do between their products. Each is one kernel where there is one for the device, else null. */
import * as abi from "./generated/ops";
import type { Handle } from "./native";
import { wrapAll } from "./operand";
import type { Tensor } from "./tensor";

const noLengths: readonly number[] = [];

const handle = (tensor: Tensor | null | undefined) => tensor?.handle ?? null;

/** The tensors of a result, or null where it has none. */
const found = <T extends readonly Tensor[]>(handles: readonly Handle[]): T | null =>
  handles.length === 0 ? null : (wrapAll(handles) as unknown as T);

export interface ShortConvolution {
  /** (C, K, 1) */
  weight: Tensor;
  bias?: Tensor | null;
  /** (B, T, C): x is multiplied by it. */
  opening?: Tensor | null;
  /** (B, T, C): the result is multiplied by it. */
  gate?: Tensor | null;
  /** The K − 1 inputs before the first, (B, K − 1, C); zeros where null. */
  before?: Tensor | null;
  /** Which tokens are a row's own, (B, T); others count as zeros. */
  own?: Tensor | null;
  /** How many of the tokens are each row's own; null for all. */
  lengths?: readonly number[] | null;
  /** Whether sums pass silu. */
  silu?: boolean;
}

/** x (B, T, C) → each channel's sum over its last K inputs, (B, T, C), and the inputs that the next call looks back at. */
export function shortConvolution(x: Tensor, options: ShortConvolution): [y: Tensor, after: Tensor] | null {
  const { weight, bias, opening, gate, before, own, lengths, silu = false } = options;
  return found(
    abi.short_conv(
      x.handle,
      handle(opening),
      handle(gate),
      handle(before),
      weight.handle,
      handle(bias),
      handle(own),
      lengths ?? noLengths,
      silu,
    ),
  );
}

export interface DeltaLayer {
  /** Queries, keys and values side by side, (B, T, 2 · Hk · Dk + Hv · Dv). */
  entering: Tensor;
  /** (B, T, Hv · Dv) */
  gate: Tensor;
  /** Ahead of the sigmoid, (B, T, Hv). */
  strength: Tensor;
  /** Ahead of its bias and softplus, (B, T, Hv). */
  decay: Tensor;
  /** (2 · Hk · Dk + Hv · Dv, K, 1) */
  convWeight: Tensor;
  /** The logarithm of each head's decay rate, (Hv). */
  rates: Tensor;
  /** (Hv) */
  decayBias: Tensor;
  /** Of the norm, (Dv). */
  normWeight: Tensor;
  eps: number;
  keyHeads: number;
  /** Inputs of the convolution before the first, (B, K − 1, C); zeros where null. */
  before: Tensor | null;
  /** (B, Hv, Dv, Dk) float32; zeros where null. */
  state: Tensor | null;
  own: Tensor | null;
  lengths: readonly number[] | null;
}

/** Gated DeltaNet between its projections: [out (B, T, Hv · Dv), the convolution's last inputs, state]. */
export function deltaLayer(layer: DeltaLayer): [out: Tensor, after: Tensor, state: Tensor] | null {
  return found(
    abi.delta_layer(
      layer.entering.handle,
      layer.gate.handle,
      layer.strength.handle,
      layer.decay.handle,
      handle(layer.before),
      layer.convWeight.handle,
      layer.rates.handle,
      layer.decayBias.handle,
      layer.normWeight.handle,
      handle(layer.state),
      handle(layer.own),
      layer.lengths ?? noLengths,
      layer.keyHeads,
      layer.eps,
    ),
  );
}

/**
 * A state S (Dv, Dk) of each head of values, and how tokens change it: S ← S w + v kᵀ as such, S ← S w + β (v − S w k) kᵀ
 * with a strength β, S ← S w + (S w a) bᵀ + v kᵀ with readers a; y = S q.
 */
export interface Recurrence {
  /** q (B, T, Hk, Dk) */
  queries: Tensor;
  /** k (B, T, Hk, Dk) */
  keys: Tensor;
  /** v (B, T, Hv, Dv), Hv a multiple of Hk */
  values: Tensor;
  /** log w: (B, T, Hv), or (B, T, Hv, Dk) */
  decay: Tensor;
  /** β (B, T, Hv) */
  strength?: Tensor | null;
  /** a (B, T, Hk, Dk) */
  readers?: Tensor | null;
  /** b (B, T, Hk, Dk); the keys where absent */
  changes?: Tensor | null;
  /** (B, Hv, Dv, Dk) float32; zeros where absent */
  state?: Tensor | null;
  /** Which tokens are a row's own, (B, T); what is not leaves the state as it is. */
  own?: Tensor | null;
  /** What queries and keys are stretched to, 10⁻⁶ added to their own length, squared. They stay where absent. */
  queryLength?: number;
  keyLength?: number;
}

/** [y (B, T, Hv, Dv), state] */
export function recurrence(rule: Recurrence): [y: Tensor, state: Tensor] | null {
  return found(
    abi.recurrence(
      rule.queries.handle,
      rule.keys.handle,
      rule.values.handle,
      rule.decay.handle,
      handle(rule.strength),
      handle(rule.readers),
      handle(rule.changes),
      handle(rule.state),
      handle(rule.own),
      rule.queryLength ?? 0,
      rule.keyLength ?? 0,
    ),
  );
}

export interface StateSpaceHeads {
  /** x, B and C side by side, (B, T, H · P + 2 · G · N). */
  mixed: Tensor;
  /** Ahead of their bias and softplus, (B, T, H). */
  steps: Tensor;
  /** Results are multiplied by its silu, (B, T, H · P). */
  gate: Tensor | null;
  /** The logarithm of each head's decay rate, (H). */
  rates: Tensor;
  /** What of x passes by, (H). */
  passing: Tensor;
  /** (H) */
  stepBias: Tensor;
  /** Bounds of the step sizes. */
  limits: readonly [min: number, max: number];
  groups: number;
  headDim: number;
  /** (B, H, P, N) float32; zeros where null. */
  state: Tensor | null;
  own: Tensor | null;
}

/** Mamba-2 between its convolution and its norm: [y (B, T, H · P), state]. */
export function stateSpace(heads: StateSpaceHeads): [y: Tensor, state: Tensor] | null {
  const [least, most] = heads.limits;
  return found(
    abi.state_space(
      heads.mixed.handle,
      heads.steps.handle,
      handle(heads.gate),
      heads.rates.handle,
      heads.passing.handle,
      heads.stepBias.handle,
      handle(heads.state),
      handle(heads.own),
      heads.groups,
      heads.headDim,
      least,
      most,
    ),
  );
}

export interface GatedScan {
  /** (B, T, C) */
  x: Tensor;
  /** Ahead of softplus, (B, T, C). */
  steps: Tensor;
  /** (B, T, N) */
  B: Tensor;
  /** (B, T, N) */
  C: Tensor;
  /** Results are multiplied by its silu, (B, T, C). */
  gate: Tensor;
  /** The logarithm of decay rates, (C, N). */
  rates: Tensor;
  /** What of x passes by, (C). */
  passing: Tensor;
  /** (B, C, N) float32; zeros where null. */
  state: Tensor | null;
  own: Tensor | null;
}

/** Mamba's scan and the gate behind it: [y (B, T, C), state]. */
export function selectiveScan(scan: GatedScan): [y: Tensor, state: Tensor] | null {
  return found(
    abi.selective_scan(
      scan.x.handle,
      scan.steps.handle,
      scan.B.handle,
      scan.C.handle,
      scan.gate.handle,
      scan.rates.handle,
      scan.passing.handle,
      handle(scan.state),
      handle(scan.own),
    ),
  );
}
