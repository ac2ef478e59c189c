/** DoRA: LoRA that learns direction and length of a weight's rows apart. Liu et al. 2024, arXiv:2402.09353. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { BlockLinear, Embedding, Layer, Linear, QuantizedLinear } from "../nn";
import { parameter } from "../nn";
import { embeddingOf } from "./lora-embedding";
import { linearOf, repacked } from "./lora-linear";
import { type Adapter, denseWeight, inputDimsOf, LowRank, type LowRankOptions } from "./low-rank";

/** The lengths of a matrix' rows. */
const rowNorms = (matrix: Tensor) => mx.linalg.norm(matrix, { axis: 1 });

/** The matrix with rows of the given lengths, in its own dtype. */
const withRowNorms = (matrix: Tensor, norms: Tensor) =>
  norms.divide(rowNorms(matrix)).expandDims(1).multiply(matrix).astype(matrix.dtype);

/** As the paper, the adapted rows' lengths take no part in the gradient. */
const fixed = mx.stopGradient;

/** The adapted layer with rows of length `m`; A (inputDims, rank), B (rank, outputDims). A packed base is unpacked at each call. */
export class DoraLinear extends LowRank implements Layer, Adapter {
  /** (outputDims), float32 */
  m: Tensor;

  constructor(
    readonly linear: Linear | QuantizedLinear | BlockLinear,
    options: LowRankOptions,
  ) {
    const inputDims = inputDimsOf(linear);
    super([inputDims, options.rank], [options.rank, linear.weight.dim(0)], inputDims, options);
    this.m = parameter(mx.scope(() => rowNorms(denseWeight(linear).astype("float32"))));
  }

  /** x (…, inputDims) → (…, outputDims) */
  forward(x: Tensor): Tensor {
    const weight = denseWeight(this.linear);
    const change = this.dropout.forward(x).matmul(this.lora_a).matmul(this.lora_b);
    const out = x.matmul(weight.T).add(change.multiply(this.scale).astype(x.dtype));
    const adapted = weight.add(this.lora_b.T.multiply(this.scale).matmul(this.lora_a.T));
    const scaled = this.m
      .divide(fixed(rowNorms(adapted)))
      .astype(x.dtype)
      .multiply(out);
    return this.linear.bias ? scaled.add(this.linear.bias) : scaled;
  }

  fuse({ dequantize = false }: { dequantize?: boolean } = {}): Linear | QuantizedLinear {
    const weight = denseWeight(this.linear);
    const change = this.lora_b.T.multiply(this.scale).matmul(this.lora_a.T);
    const fused = withRowNorms(weight.add(change.astype(weight.dtype)), this.m);
    return repacked(linearOf(fused, this.linear.bias), this.linear, dequantize);
  }
}

/** An embedding whose vectors are adapted in direction and have length `m`; A (count, rank), B (rank, dims). */
export class DoraEmbedding extends LowRank implements Adapter {
  /** (count) */
  m: Tensor;

  constructor(
    readonly embedding: Embedding,
    options: LowRankOptions,
  ) {
    const [count, dims] = embedding.weight.shape as [number, number];
    super([count, options.rank], [options.rank, dims], count, options);
    this.m = parameter(mx.scope(() => rowNorms(embedding.weight)));
  }

  /** (count, dims), without the adapter's change */
  get weight(): Tensor {
    return this.embedding.weight;
  }

  /** ids (…) of integers below the count, which nothing checks → (…, dims) */
  forward(ids: Tensor): Tensor {
    const vectors = this.embedding.forward(ids);
    const change = this.lora_a.take(ids, 0).multiply(this.scale).matmul(this.lora_b);
    const out = vectors.add(this.dropout.forward(change).astype(vectors.dtype));
    const norms = mx.linalg.norm(vectors.add(change), { axis: -1 });
    return this.m.take(ids, 0).divide(fixed(norms)).expandDims(-1).multiply(out);
  }

  /** Scores of every entry: x (…, dims) → (…, count) */
  asLinear(x: Tensor): Tensor {
    const change = this.dropout.forward(x).matmul(this.lora_b.T).matmul(this.lora_a.T);
    const out = this.embedding.asLinear(x).add(change.multiply(this.scale).astype(x.dtype));
    const adapted = this.weight.add(this.lora_a.multiply(this.scale).matmul(this.lora_b));
    return this.m.divide(fixed(rowNorms(adapted))).multiply(out);
  }

  fuse(): Embedding {
    const change = this.lora_a.multiply(this.scale).matmul(this.lora_b);
    return embeddingOf(withRowNorms(this.weight.add(change.astype(this.weight.dtype)), this.m));
  }
}
