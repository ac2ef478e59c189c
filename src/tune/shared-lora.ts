/**
 * LoRA layers that several sequences of a batch share, each with an adapter of its own or none. Hu et al. 2021,
 * arXiv:2106.09685.
 *
 * The adapters' factors stand side by side: for all rows together x A is one product, what belongs to other rows' adapters
 * becomes zero, and the product with B sums the rest. Each factor is read once, however many rows use it.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type BlockEmbedding,
  type BlockLinear,
  type BlockSwitchLinear,
  type Embedding,
  type ExpertLayer,
  keptOf,
  type Linear,
  Module,
  piecesOf,
  type QuantizedEmbedding,
  type QuantizedLinear,
  type QuantizedSwitchLinear,
  type StandIn,
  type SwitchLinear,
} from "../nn";
import { expertProducts } from "../nn/expert-products";
import { inputDimsOf } from "./low-rank";

/** What one adapter changes in one layer. B has the adapter's scale in it. */
export interface Change {
  a: Tensor;
  b: Tensor;
}

/** Which adapters are in use, and by which rows. */
export interface RowChoice {
  /** Adapters whose factors stand side by side; another list object for other ones. */
  readonly members: readonly object[];
  /** (rows, R): which of the factors' columns each row uses; null where all rows use all. */
  mask(of: readonly { adapter: object; rank: number }[]): Tensor | null;
  readonly rows: number;
}

/** Factors side by side, for the adapters among `members` that change this layer. */
interface Stack extends Change {
  members: readonly object[];
  of: readonly { adapter: object; rank: number }[];
}

type Base = (SharedLoraLinear | SharedLoraSwitchLinear)["linear"] | SharedLoraEmbedding["embedding"];

/** A layer that stands in for another, and changes its results where an adapter of the present rows says so. */
export abstract class SharedLora extends Module {
  readonly #changes = new Map<object, Change>();
  #stack: Stack | null = null;
  /** Axes of A and of B on which the rank lies. */
  abstract readonly rankAxes: readonly [number, number];
  /** The axis of A on which the layer's inputs lie, and that of B of its outputs; null where neither is ever divided. */
  abstract readonly dividedAxes: readonly [inputs: number, outputs: number] | null;

  /** @param choice of the rows that the model reads at the moment; null where none of them has an adapter */
  constructor(private readonly choice: () => RowChoice | null) {
    super();
  }

  abstract readonly base: Base;

  /** Shapes of A and B of an adapter of a rank. */
  abstract shapes(rank: number): [a: number[], b: number[]];

  /** Of an adapter's factors those that belong to this process's part of the layer. */
  part({ a, b }: Change): Change {
    const { inputs, outputs } = keptOf(this.base);
    if (!this.dividedAxes) return { a, b };
    const [inputAxis, outputAxis] = this.dividedAxes;
    return { a: piecesOf(a, inputAxis, inputs), b: piecesOf(b, outputAxis, outputs) };
  }

  /** Takes an adapter's factors over. */
  add(adapter: object, change: Change): void {
    this.#changes.set(adapter, mx.keep(change));
  }

  remove(adapter: object): void {
    const change = this.#changes.get(adapter);
    if (!change) return;
    this.#changes.delete(adapter);
    mx.release(change);
    if (this.#stack?.of.some((one) => one.adapter === adapter)) this.#unstack();
  }

  #unstack(): void {
    if (this.#stack) mx.release([this.#stack.a, this.#stack.b]);
    this.#stack = null;
  }

  /** Bytes of the factors that stand side by side, beside those of each adapter. */
  get stackedBytes(): number {
    const { a, b, of } = this.#stack ?? { of: [] };
    return a && b && of.length > 1 ? a.nbytes + b.nbytes : 0;
  }

  /** Whether no row has an adapter that changes this layer. */
  get isIdle(): boolean {
    return this.stack() === null;
  }

  protected stack(): { a: Tensor; b: Tensor; mask: Tensor | null; rows: number } | null {
    const choice = this.choice();
    if (!choice || this.#changes.size === 0) return null;
    if (this.#stack?.members !== choice.members) {
      this.#unstack();
      const used = choice.members.flatMap((adapter) => {
        const change = this.#changes.get(adapter);
        return change ? [{ adapter, change, rank: change.a.dim(this.rankAxes[0]) }] : [];
      });
      if (used.length === 0) return null;
      const [axisA, axisB] = this.rankAxes;
      const a = mx.keep(
        mx.concatenate(
          used.map(({ change }) => change.a),
          { axis: axisA },
        ),
      );
      const b = mx.keep(
        mx.concatenate(
          used.map(({ change }) => change.b),
          { axis: axisB },
        ),
      );
      this.#stack = { a, b, members: choice.members, of: used.map(({ adapter, rank }) => ({ adapter, rank })) };
    }
    const { a, b, of } = this.#stack;
    return { a, b, mask: choice.mask(of), rows: choice.rows };
  }

  override dispose(): void {
    super.dispose();
    this.#unstack();
    for (const change of this.#changes.values()) mx.release(change);
    this.#changes.clear();
  }
}

/**
 * x A, (…, R), without what belongs to other rows' adapters. The first axis is the rows', or the rows' times others.
 * @param tokens which of all rows' tokens each entry of the first axis belongs to, where they are in another order
 */
function own(inner: Tensor, mask: Tensor | null, rows: number, tokens?: { places: Tensor; count: number }): Tensor {
  if (!mask) return inner;
  const [first, rank] = [inner.dim(0), inner.dim(-1)];
  const ones = (count: number) => new Array<number>(count).fill(1);
  if (tokens) {
    const row = mx.floorDivide(tokens.places, tokens.count / rows);
    const wide = mask.take(row, 0).reshape(first, ...ones(inner.ndim - 2), rank);
    return mx.where(wide, inner, 0);
  }
  if (first === rows) return mx.where(mask.reshape(rows, ...ones(inner.ndim - 2), rank), inner, 0);
  const apart = inner.reshape(rows, first / rows, ...inner.shape.slice(1));
  return mx.where(mask.reshape(rows, ...ones(apart.ndim - 2), rank), apart, 0).reshape(...inner.shape);
}

/** y + x A B, for each row by its own A (inputDims, rank) and B (rank, outputDims). */
export class SharedLoraLinear extends SharedLora implements StandIn {
  readonly rankAxes = [1, 0] as const;
  readonly dividedAxes = [0, 1] as const;

  constructor(
    readonly linear: Linear | QuantizedLinear | BlockLinear,
    choice: () => RowChoice | null,
  ) {
    super(choice);
  }

  get base(): SharedLoraLinear["linear"] {
    return this.linear;
  }

  shapes(rank: number): [number[], number[]] {
    return [
      [inputDimsOf(this.linear), rank],
      [rank, this.linear.weight.dim(0)],
    ];
  }

  /** x (…, inputDims) → (…, outputDims) */
  forward(x: Tensor): Tensor {
    return this.changed(x, this.linear.forward(x));
  }

  changed(x: Tensor, out: Tensor): Tensor {
    const stack = this.stack();
    if (!stack) return out;
    const inner = own(x.matmul(stack.a), stack.mask, stack.rows);
    return out.add(inner.matmul(stack.b).astype(x.dtype));
  }
}

/** The same for every expert: A (experts, rank, inputDims) and B (experts, outputDims, rank). */
export class SharedLoraSwitchLinear extends SharedLora implements ExpertLayer {
  readonly rankAxes = [1, 2] as const;
  readonly dividedAxes = [2, 1] as const;

  constructor(
    readonly linear: SwitchLinear | QuantizedSwitchLinear | BlockSwitchLinear,
    choice: () => RowChoice | null,
  ) {
    super(choice);
  }

  get base(): SharedLoraSwitchLinear["linear"] {
    return this.linear;
  }

  shapes(rank: number): [number[], number[]] {
    const [experts, outputDims] = this.linear.weight.shape as [number, number];
    return [
      [experts, rank, inputDimsOf(this.linear)],
      [experts, outputDims, rank],
    ];
  }

  /** x (…, 1, 1 or k, M, inputDims), indices (…, k) of experts → (…, k, M, outputDims) */
  forward(x: Tensor, indices: Tensor, options: Parameters<ExpertLayer["forward"]>[2] = {}): Tensor {
    const out = this.linear.forward(x, indices, options);
    const stack = this.stack();
    if (!stack) return out;
    const { sorted = false, tokens } = options;
    const inner = own(expertProducts(x, stack.a, indices, sorted), stack.mask, stack.rows, tokens);
    return out.add(expertProducts(inner, stack.b, indices, sorted).astype(x.dtype));
  }
}

/** An embedding's vectors, each moved by its row of A (count, rank) times B (rank, dims). */
export class SharedLoraEmbedding extends SharedLora {
  readonly rankAxes = [1, 0] as const;
  readonly dividedAxes = null;

  constructor(
    readonly embedding: Embedding | QuantizedEmbedding | BlockEmbedding,
    choice: () => RowChoice | null,
  ) {
    super(choice);
  }

  get base(): SharedLoraEmbedding["embedding"] {
    return this.embedding;
  }

  /** The base's weight, whose first dimension is how many vectors there are. */
  get weight(): Tensor {
    return this.embedding.weight;
  }

  shapes(rank: number): [number[], number[]] {
    return [
      [this.embedding.weight.dim(0), rank],
      [rank, inputDimsOf(this.embedding)],
    ];
  }

  /** ids (…) of integers below the count, which nothing checks → (…, dims) */
  forward(ids: Tensor): Tensor {
    const vectors = this.embedding.forward(ids);
    const stack = this.stack();
    if (!stack) return vectors;
    const inner = own(stack.a.take(ids, 0), stack.mask, stack.rows);
    return vectors.add(inner.matmul(stack.b).astype(vectors.dtype));
  }

  /** Scores of every entry: x (…, dims) → (…, count) */
  asLinear(x: Tensor): Tensor {
    const scores = this.embedding.asLinear(x);
    const stack = this.stack();
    if (!stack) return scores;
    const inner = own(x.matmul(stack.b.T), stack.mask, stack.rows);
    return scores.add(inner.matmul(stack.a.T).astype(x.dtype));
  }
}

/** A layer without what stands in for it. */
export const unshared = (layer: Module): Module => (layer instanceof SharedLora ? layer.base : layer);
