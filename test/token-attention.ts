/** Attention that takes a token as one operation or the long way, and what tests of that compare. */
import { afterAll, beforeAll, expect } from "bun:test";
import * as mx from "../src/mlx";
import {
  attendToken,
  attention,
  fuseProjections,
  joinHeads,
  type KVCache,
  type Layer,
  Linear,
  Module,
  projectHeads,
  quantize,
  RMSNorm,
  type RotaryEmbedding,
  type RotatingKVCache,
} from "../src/nn";

/** Called in a test file: its random numbers are the same each time, and it leaves no handle behind. */
export function seedWithoutLeaks(): void {
  let before: number;
  beforeAll(() => {
    mx.random.seed(3);
    before = mx.liveHandles();
  });
  afterAll(() => expect(mx.liveHandles()).toBe(before));
}

export interface Sizes {
  dims: number;
  heads: number;
  kvHeads: number;
  headDim: number;
}

export class Attention extends Module {
  readonly q_proj: Layer;
  readonly k_proj: Layer;
  readonly v_proj: Layer;
  readonly o_proj: Layer;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;
  q_norm?: RMSNorm;
  k_norm?: RMSNorm;

  constructor(
    { dims, heads, kvHeads, headDim }: Sizes,
    readonly rope: RotaryEmbedding | null,
    { bias = false, normed = false } = {},
  ) {
    super();
    this.q_proj = new Linear(dims, heads * headDim, { bias });
    this.k_proj = new Linear(dims, kvHeads * headDim, { bias });
    this.v_proj = new Linear(dims, kvHeads * headDim, { bias });
    this.o_proj = new Linear(heads * headDim, dims, { bias });
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
    if (normed) {
      this.q_norm = new RMSNorm(headDim, 1e-6);
      this.k_norm = new RMSNorm(headDim, 1e-6);
    }
  }

  long(x: mx.Tensor, cache: KVCache | RotatingKVCache): mx.Tensor {
    const mask = cache.makeMask(x.dim(1));
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache.offset);
    return this.o_proj.forward(joinHeads(attention(q, k, v, { scale: this.scale, mask, cache })));
  }
}

class Holder extends Module {
  constructor(readonly part: Module) {
    super();
  }
}

/** A model's part in the dtype, its weights packed where `how` says so, ready to run. */
export function ready<M extends Module>(part: M, dtype: mx.Dtype, how?: mx.Quantization): M {
  const holder = new Holder(part);
  mx.scope(() => holder.update(holder.namedParameters().map(([name, w]) => [name, w.astype(dtype)])));
  if (how) quantize(holder, how);
  fuseProjections(holder);
  mx.eval(holder.parameters());
  return part;
}

export const random = (shape: number[], dtype: mx.Dtype) =>
  mx.scope(() => {
    const x = mx.random.normal({ shape }).astype(dtype);
    mx.eval(x);
    return x;
  });

export const bits = (x: mx.Tensor) => mx.scope(() => x.astype("float32").toList());

/** Runs prompt and tokens, each by its way, and gives what comes out. */
export function steps(
  layer: Attention,
  cache: KVCache | RotatingKVCache,
  inputs: mx.Tensor[],
  way: "long" | "short",
): unknown[] {
  return inputs.map((x) =>
    mx.scope(() => {
      const short = way === "short" ? attendToken(x, layer, null, cache) : null;
      return bits(short ?? layer.long(x, cache));
    }),
  );
}

export const cachesLeft = (cache: KVCache | RotatingKVCache) =>
  mx.scope(() => cache.state.slice(0, 2).map((rows) => bits(rows as mx.Tensor)));

export const sizes: Sizes = { dims: 192, heads: 6, kvHeads: 2, headDim: 32 };
