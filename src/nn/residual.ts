/** The stream that runs through a decoder's layers, each of which adds to it. */
import type { Dtype, Tensor } from "../mlx";

/** A norm over the last axis. One that can also make the sum ahead of it does both in one kernel where there is one. */
export interface Norm {
  forward(x: Tensor): Tensor;
  /** x + delta and its norm. */
  afterSum?(x: Tensor, delta: Tensor): [sum: Tensor, normed: Tensor];
}

/**
 * Hidden states (B, T, D) to which the latest part may still have to be added: the next norm makes the sum together with
 * its own result. A layer takes one and gives the next:
 *
 *     const h = x.plus(this.self_attn.forward(x.branch(this.input_layernorm), mask, cache));
 *     return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
 */
export class Residual {
  #base: Tensor;
  #delta: Tensor | null;

  constructor(base: Tensor, delta: Tensor | null = null) {
    this.#base = base;
    this.#delta = delta;
  }

  /** The hidden states themselves. */
  get value(): Tensor {
    if (this.#delta) this.#settle(this.#base.add(this.#delta));
    return this.#base;
  }

  get dtype(): Dtype {
    return this.#base.dtype;
  }

  /** The stream after a part of a layer has added to it: delta (B, T, D). */
  plus(delta: Tensor): Residual {
    return new Residual(this.value, delta);
  }

  /** What a part of a layer computes on: the norm of the hidden states. */
  branch(norm: Norm): Tensor {
    if (!this.#delta || !norm.afterSum) return norm.forward(this.value);
    const [sum, normed] = norm.afterSum(this.#base, this.#delta);
    this.#settle(sum);
    return normed;
  }

  /** The stream behind a layer that is one operation: `layer` gives the new stream in its two parts, or null. */
  through(layer: (base: Tensor, delta: Tensor | null) => [base: Tensor, delta: Tensor] | null): Residual | null {
    const parts = layer(this.#base, this.#delta);
    return parts && new Residual(...parts);
  }

  #settle(sum: Tensor): void {
    this.#base = sum;
    this.#delta = null;
  }
}
