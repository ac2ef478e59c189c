/** The layer around Mamba's selective scan. Gu & Dao 2023, arXiv:2312.00752, figure 3. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { swiglu } from "./activations";
import type { ArraysCache } from "./cache";
import { CausalConv1d } from "./conv";
import { type Layer, Linear } from "./linear";
import { Module, parameter } from "./module";
import { type SelectiveScanInputs, selectiveScan } from "./selective-scan";
import {
  behind,
  type Divisible,
  innerPart,
  isSliceable,
  keepChannels,
  keepOutputs,
  keepPlaces,
  type Split,
  SumOfParts,
} from "./shard";

export interface MambaSizes {
  dims: number;
  /** How many channels have a state. */
  channels: number;
  /** Width of a channel's state. */
  stateSize: number;
  /** Tokens that the convolution sees. */
  kernelSize: number;
  /** Width that step sizes are projected from. */
  stepRank: number;
  /** Whether the first and last projection have biases, and whether the convolution has. */
  bias: boolean;
  convBias: boolean;
}

export type Selection = [steps: Tensor, B: Tensor, C: Tensor];

interface GatedScanInputs extends SelectiveScanInputs {
  /** (B, T, C) */
  gate: Tensor;
}

/** A short convolution, the scan, and a gate. */
export class MambaMixer extends Module implements Divisible {
  in_proj: Layer;
  conv1d: CausalConv1d;
  x_proj: Layer;
  dt_proj: Layer;
  A_log: Tensor;
  D: Tensor;
  out_proj: Layer;

  constructor(readonly sizes: MambaSizes) {
    super();
    const { dims, channels, stateSize, kernelSize, stepRank, bias, convBias } = sizes;
    this.in_proj = new Linear(dims, 2 * channels, { bias });
    this.conv1d = new CausalConv1d(channels, kernelSize, { bias: convBias });
    this.x_proj = new Linear(channels, stepRank + 2 * stateSize, { bias: false });
    this.dt_proj = new Linear(stepRank, channels);
    const rates = () => mx.arange(1, stateSize + 1, 1, { dtype: "float32" }).log();
    this.A_log = parameter(mx.scope(() => mx.repeat(rates().expandDims(0), channels, { axis: 0 })));
    this.D = parameter(mx.ones([channels]));
    this.out_proj = new Linear(channels, dims, { bias });
  }

  /** What becomes of step sizes (B, T, rank), B and C (B, T, N) ahead of the scan. */
  protected normalized(selection: Selection): Selection {
    return selection;
  }

  /** Leaves a rank's channels. What selects is made of all: it is summed too. */
  shard(split: Split): void {
    const { in_proj: first, x_proj, dt_proj: steps, out_proj: last } = this;
    const part = innerPart(last, [steps], split);
    if (!part || !isSliceable(first) || !isSliceable(x_proj) || !isSliceable(steps)) return;
    keepOutputs(first, [part, behind(this.sizes.channels, part)]);
    keepChannels(this.conv1d, [part]);
    this.x_proj = new SumOfParts(x_proj as never, part, split);
    keepOutputs(steps, [part]);
    keepPlaces(this, ["A_log", "D"], 0, [part]);
    this.out_proj = new SumOfParts(last as never, part, split);
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, own: Tensor | null, cache?: ArraysCache): Tensor {
    const length = x.dim(1);
    const { stepRank, stateSize } = this.sizes;
    const [entering, gate] = this.in_proj.forward(x).split(2, -1) as [Tensor, Tensor];
    const lengths = cache?.lengthsWithin(length);
    const [hidden, recent] = this.conv1d.forward(entering, { before: cache?.get(0), own, lengths, silu: true });
    const parts = this.x_proj.forward(hidden).split([stepRank, stepRank + stateSize], -1) as Selection;
    const [narrow, B, C] = this.normalized(parts);
    const inputs = { x: hidden, steps: this.dt_proj.forward(narrow), B, C, gate };
    const [y, state] = this.#scan(inputs, cache?.get(1) ?? null, own);
    cache?.put(0, recent);
    cache?.put(1, state);
    cache?.advance(length);
    return this.out_proj.forward(y);
  }

  /** The scan, and the gate behind it; `steps` are ahead of softplus. */
  #scan(inputs: GatedScanInputs, state: Tensor | null, own: Tensor | null): [y: Tensor, state: Tensor] {
    const { A_log: rates, D: passing } = this;
    const made = mx.fast.selectiveScan({ ...inputs, rates, passing, state, own });
    if (made) return made;
    const { gate, steps, ...rest } = inputs;
    const [y, after] = selectiveScan({ ...rest, steps: mx.logaddexp(steps, 0) }, this, state, own);
    return [swiglu(gate, y), after];
  }
}
