/** LoRA on embeddings, which may serve as the output projection too. Hu et al. 2021, arXiv:2106.09685. */
import type { Tensor } from "../mlx";
import { type BlockEmbedding, Embedding, type QuantizedEmbedding } from "../nn";
import { repacked } from "./lora-linear";
import { type Adapter, denseWeight, inputDimsOf, LowRank, type LowRankOptions } from "./low-rank";

/** An embedding's vectors, each moved by its row of A (count, rank) times B (rank, dims). */
export class LoraEmbedding extends LowRank implements Adapter {
  constructor(
    readonly embedding: Embedding | QuantizedEmbedding | BlockEmbedding,
    options: LowRankOptions,
  ) {
    const count = embedding.weight.dim(0);
    super([count, options.rank], [options.rank, inputDimsOf(embedding)], count, options);
  }

  /** The base's weight, whose first dimension is how many vectors there are. */
  get weight(): Tensor {
    return this.embedding.weight;
  }

  /** ids (…) of integers below the count, which nothing checks → (…, dims) */
  forward(ids: Tensor): Tensor {
    const vectors = this.embedding.forward(ids);
    const change = this.dropout.forward(this.lora_a.take(ids, 0).matmul(this.lora_b));
    return vectors.add(change.multiply(this.scale).astype(vectors.dtype));
  }

  /** Scores of every entry: x (…, dims) → (…, count) */
  asLinear(x: Tensor): Tensor {
    const change = this.dropout.forward(x).matmul(this.lora_b.T).matmul(this.lora_a.T);
    return this.embedding.asLinear(x).add(change.multiply(this.scale).astype(x.dtype));
  }

  fuse({ dequantize = false }: { dequantize?: boolean } = {}): Embedding | QuantizedEmbedding {
    const weight = denseWeight(this.embedding);
    const change = this.lora_a.multiply(this.scale).matmul(this.lora_b);
    return repacked(embeddingOf(weight.add(change.astype(weight.dtype))), this.embedding, dequantize);
  }
}

/** An embedding of a weight (count, dims). */
export function embeddingOf(weight: Tensor): Embedding {
  const [count, dims] = weight.shape as [number, number];
  return new Embedding(count, dims).update({ weight });
}
