/**
 * Projections that share their input, as one product. Decoding is bound by memory and by the number of operations, so
 * one wide product beats several narrow ones. The joint weight is made once after loading; each layer's own tensors
 * become views of it, so the parameter tree stays the checkpoint's and memory is not doubled.
 */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { BlockLinear, type BlockType, blockLinear } from "./blocks";
import { Embedding } from "./embedding";
import type { HeldTensor } from "./held";
import {
  holdTranspose,
  type Layer,
  Linear,
  linear,
  type Packing,
  QuantizedLinear,
  quantizedLinear,
  type StandIn,
} from "./linear";
import { Module, parameter } from "./module";

/** Names of layers that share their input wherever they stand side by side. */
export type Joins = readonly (readonly string[])[];

/** Those of most architectures. */
export const usualJoins: Joins = [
  ["q_proj", "k_proj", "v_proj"],
  ["gate_proj", "up_proj"],
];

type Projection = Linear | QuantizedLinear | BlockLinear;

/** The tensors of a layer that have one row for each output. */
interface Rows {
  weight: Tensor;
  scales?: Tensor;
  biases?: Tensor;
  bias?: Tensor;
}

const rowNames = ["weight", "scales", "biases", "bias"] as const;

const rowsOf = ({ weight, scales, biases, bias }: Rows): Rows => ({ weight, scales, biases, bias });

const haveSameRows = (a: Rows, b: Rows) =>
  a.weight === b.weight && a.scales === b.scales && a.biases === b.biases && a.bias === b.bias;

/** Several layers as one. A hidden field of the first of them, which frees it. */
export class JointProjection extends Module implements Rows {
  readonly #members: readonly Projection[];
  readonly #views: readonly Rows[];
  /** Where each member's outputs end, but the last's. */
  readonly #ends: readonly number[];
  readonly packing: Packing | null;
  /** The type of the weight's blocks, where it is in such. */
  readonly blocks: BlockType | null;
  weight!: Tensor;
  scales?: Tensor;
  biases?: Tensor;
  bias?: Tensor;
  _held?: HeldTensor;

  /** Takes over the members' tensors: they become views of the joint ones. Lazy. */
  constructor(members: readonly Projection[]) {
    super();
    const ends: number[] = [];
    for (const { weight } of members) ends.push((ends.at(-1) ?? 0) + weight.dim(0));
    ends.pop();

    for (const name of rowNames) {
      const parts = members.map((member) => (member as Rows)[name]).filter((part) => part !== undefined);
      if (parts.length === 0) continue;
      const joint = parameter(mx.concatenate(parts));
      this[name] = joint;
      // Not the concatenation itself: a slice of that would be read from the checkpoint's file once more.
      const views = mx.stopGradient(joint).split(ends);
      for (const [i, view] of views.entries()) members[i]!.update([[name, view]]);
    }
    this.#members = members;
    this.#views = members.map(rowsOf);
    this.#ends = ends;
    const first = members[0];
    this.packing = first instanceof QuantizedLinear ? first.packing : null;
    this.blocks = first instanceof BlockLinear ? first.blocks : null;
  }

  /** Whether these are the layers that were joined. */
  joins(layers: readonly Layer[]): boolean {
    return layers.length === this.#members.length && layers.every((layer, i) => layer === this.#members[i]);
  }

  /** Whether the layers still have the tensors that they had: training and tracing put others in. */
  isCurrent(): boolean {
    return this.#members.every((member, i) => haveSameRows(member, this.#views[i]!));
  }

  get members(): readonly Projection[] {
    return this.#members;
  }

  /** The members' results side by side: x (…, K) → (…, N₁ + N₂ + …) */
  forward(x: Tensor): Tensor {
    if (this.blocks) return blockLinear(x, this, this.blocks);
    return this.packing ? quantizedLinear(x, this as Rows & { scales: Tensor }, this.packing) : linear(x, this);
  }

  /** The members' results from `forward`'s. */
  split(joint: Tensor): Tensor[] {
    return joint.split(this.#ends, -1);
  }
}

const isProjection = (layer: unknown): layer is Projection =>
  layer instanceof Linear || layer instanceof QuantizedLinear || layer instanceof BlockLinear;

/** The joint projection that the first of its members holds. */
const heldBy = (first: Projection): JointProjection | null =>
  first._joint instanceof JointProjection ? first._joint : null;

/** The joint projection of the layers where `fuseProjections` joined these and x (…, T, K) is one token. */
export function jointOf(x: Tensor, layers: readonly Layer[], { ofPrompts = false } = {}): JointProjection | null {
  const first = layers[0];
  if (!isProjection(first)) return null;
  const joint = heldBy(first);
  if (!joint?.joins(layers)) return null;
  if (first instanceof QuantizedLinear && first.quantizesInputs) return null;
  if (!joint.isCurrent()) {
    // The weights were replaced, so the joint copy is stale for good.
    separate(first);
    return null;
  }
  // Many tokens keep a product busy as it is, and MLX can reuse the memory of results that stand alone.
  return x.dim(-2) === 1 || ofPrompts ? joint : null;
}

/** Layers that `fuseProjections` joined. */
const joined = new WeakSet<Module>();

/** Whether a layer runs as one with its neighbours, so that its own `forward` is not called. */
export const isJoined = (layer: Module): boolean => joined.has(layer);

function separate(first: Projection): void {
  for (const member of heldBy(first)?.members ?? []) joined.delete(member);
  first._joint?.dispose();
  first._joint = undefined;
}

const isStandIn = (layer: Layer): layer is StandIn => "changed" in layer;

const baseOf = (layer: Layer): Layer => (isStandIn(layer) ? layer.base : layer);

/** The layers' results on x (…, T, K), each (…, T, N): one product where `fuseProjections` joined these, for one token. */
export function project(x: Tensor, layers: readonly Layer[]): Tensor[] {
  const joint = jointOf(x, layers.map(baseOf));
  if (!joint) return layers.map((layer) => layer.forward(x));
  const results = joint.split(joint.forward(x));
  return layers.map((layer, i) => (isStandIn(layer) ? layer.changed(x, results[i]!) : results[i]!));
}

/**
 * The layers' results side by side on the last axis; null where they are not joined, and for several tokens, but on a GPU of
 * NVIDIA's: keys and values are products that leave most of it idle, by themselves.
 */
export function projectJointly(x: Tensor, layers: readonly Layer[]): Tensor | null {
  if (layers.some((layer) => isStandIn(layer) && !layer.isIdle)) return null;
  const ofPrompts = x.dim(-2) > 1 && mx.usesCuda();
  return jointOf(x, layers.map(baseOf), { ofPrompts })?.forward(x) ?? null;
}

/** Whether the layers can be one: all plain or all packed alike, in one dtype, all with a bias or none. */
function canJoin(layers: readonly unknown[]): layers is Projection[] {
  const kinds = layers.map((layer) => {
    if (!isProjection(layer)) return null;
    return [layer.weight.dtype, layer.weight.dim(1), layer.bias?.dtype, ...packingOf(layer)].join();
  });
  return kinds[0] !== null && kinds.every((kind) => kind === kinds[0]);
}

function packingOf(layer: Projection): unknown[] {
  if (layer instanceof BlockLinear) return [layer.blocks.code];
  return layer instanceof QuantizedLinear ? [layer.scales.dtype, ...Object.values(layer.packing)] : [];
}

/** Holds the transposes of a loaded model's dense weights. */
export function holdTransposes(model: Module): void {
  const views: Tensor[] = [];
  for (const [, module] of model.namedModules()) {
    const layers = module instanceof Linear ? [module, heldBy(module)] : module instanceof Embedding ? [module] : [];
    for (const layer of layers) if (layer) views.push(holdTranspose(layer));
  }
  mx.eval(views);
}

/** So many bytes of joint weights are made at a time. */
const bytesAtATime = 256 << 20;

/**
 * Joins the projections of a loaded model that share their input, by the names that stand side by side. Evaluates them a few at a time, so that little is in
 * memory twice; call it when no scope or map holds the checkpoint's tensors any more.
 */
export function fuseProjections(model: Module, joins: Joins = usualJoins): void {
  let lazy: Module[] = [];
  let bytes = 0;
  const evaluate = () => {
    mx.eval(lazy.map((module) => module.parameters()));
    lazy = [];
    bytes = 0;
  };
  for (const [, module] of model.namedModules()) {
    for (const names of joins) {
      const layers = names.map((name) => (module as unknown as Record<string, unknown>)[name]);
      if (!canJoin(layers)) continue;
      const first = layers[0]!;
      separate(first);
      const joint = mx.scope(() => new JointProjection(layers));
      first._joint = joint;
      for (const layer of layers) joined.add(layer);
      lazy.push(joint, ...layers);
      bytes += joint.weight.nbytes;
      if (bytes >= bytesAtATime) evaluate();
    }
  }
  evaluate();
}
