/** The gated feed-forward block. */
import type { Tensor } from "../mlx";
import { swiglu } from "./activations";
import { type Layer, Linear } from "./linear";
import { Module } from "./module";
import { project } from "./projection";
import { type Divisible, divideInner, innerPart, keepOutputs, outputsOf, type Split, SumOfParts } from "./shard";
import { feedToken, type GatedLayers } from "./token-steps";

export interface GatedMLPOptions {
  bias?: boolean;
  /** What becomes of the gate and the value; SwiGLU unless said. */
  activation?: (gate: Tensor, x: Tensor) => Tensor;
  /** Architectures differ in whether `down_proj` comes last or second: a seed draws weights and adapters in this order. */
  downLast?: boolean;
}

/** down(activation(gate(x), up(x))). Shazeer 2020, arXiv:2002.05202. */
export class GatedMLP extends Module implements Divisible {
  declare gate_proj: Layer;
  declare down_proj: Layer;
  declare up_proj: Layer;
  readonly activation: (gate: Tensor, x: Tensor) => Tensor;

  constructor(dims: number, hiddenDims: number, options: GatedMLPOptions = {}) {
    super();
    const { bias = false, activation = swiglu, downLast = false } = options;
    this.gate_proj = new Linear(dims, hiddenDims, { bias });
    if (!downLast) this.down_proj = new Linear(hiddenDims, dims, { bias });
    this.up_proj = new Linear(dims, hiddenDims, { bias });
    if (downLast) this.down_proj = new Linear(hiddenDims, dims, { bias });
    this.activation = activation;
  }

  /** This, where nobody has changed what it computes. */
  get plain(): GatedLayers | null {
    return this.forward === GatedMLP.prototype.forward ? this : null;
  }

  /** x (…, dims) → (…, dims) */
  forward(x: Tensor): Tensor {
    const whole = feedToken(x, this);
    if (whole) return whole;
    const [gate, up] = project(x, [this.gate_proj, this.up_proj]) as [Tensor, Tensor];
    return this.down_proj.forward(this.activation(gate, up));
  }

  shard(split: Split): void {
    this.down_proj = divideInner(this.down_proj, [this.gate_proj, this.up_proj], split);
  }
}

/** With gate and value from one projection. */
export class JointGatedMLP extends Module implements Divisible {
  gate_up_proj: Layer;
  down_proj: Layer;

  constructor(dims: number, hiddenDims: number) {
    super();
    this.gate_up_proj = new Linear(dims, 2 * hiddenDims, { bias: false });
    this.down_proj = new Linear(hiddenDims, dims, { bias: false });
  }

  /** x (…, dims) → (…, dims) */
  forward(x: Tensor): Tensor {
    const [gate, up] = this.gate_up_proj.forward(x).split(2, -1) as [Tensor, Tensor];
    return this.down_proj.forward(swiglu(gate, up));
  }

  shard(split: Split): void {
    const { gate_up_proj: joint, down_proj: down } = this;
    const part = innerPart(down, [joint], split);
    if (!part) return;
    const [start, end] = part;
    const inner = outputsOf(joint as never) / 2;
    keepOutputs(joint as never, [part, [inner + start, inner + end]]);
    this.down_proj = new SumOfParts(down as never, part, split);
  }
}

export interface NamedMLPOptions {
  /** What the checkpoint calls the layers. Without a gate the activation takes the value alone. */
  names: { gate?: string; up: string; down: string };
  bias: boolean;
  activation: (...inputs: Tensor[]) => Tensor;
}

/** A feed-forward block, gated or not, whose layers have other names. */
export class NamedMLP extends Module implements Divisible {
  readonly options: NamedMLPOptions;

  constructor(dims: number, hiddenDims: number, options: NamedMLPOptions) {
    super();
    const { names, bias } = options;
    const linear = (inputs: number, outputs: number) => new Linear(inputs, outputs, { bias });
    if (names.gate) Object.assign(this, { [names.gate]: linear(dims, hiddenDims) });
    Object.assign(this, { [names.up]: linear(dims, hiddenDims), [names.down]: linear(hiddenDims, dims) });
    this.options = options;
  }

  /** x (…, dims) → (…, dims) */
  forward(x: Tensor): Tensor {
    const { names, activation } = this.options;
    const layers = this as unknown as Record<string, Layer>;
    const inputs = [names.gate, names.up].flatMap((name) => (name ? layers[name]! : []));
    return layers[names.down]!.forward(activation(...project(x, inputs)));
  }

  shard(split: Split): void {
    const { gate, up, down } = this.options.names;
    const layers = this as unknown as Record<string, Layer>;
    const ups = [gate, up].flatMap((name) => (name ? layers[name]! : []));
    layers[down] = divideInner(layers[down]!, ups, split);
  }
}
