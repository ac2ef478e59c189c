/**
 * Alternating updates: N streams of hidden states, of which a layer computes on one; the others are predicted, and
 * corrected by what the layer gave. Baykal et al. 2023, arXiv:2301.13310.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type Layer, Linear } from "./linear";
import { Module, parameter } from "./module";
import { RMSNorm } from "./norms";

export interface AltUpSizes {
  /** Width of the hidden states, D. */
  dims: number;
  /** How many streams, N. */
  streams: number;
  /** The one that the layer computes on. */
  active: number;
  eps: number;
}

export class AltUp extends Module {
  /** Factor on the active stream where a layer's own input meets it, (D). */
  correct_output_scale: Tensor;
  correction_coefs: Layer;
  prediction_coefs: Layer;
  modality_router: Layer;
  router_norm: RMSNorm;
  readonly streams: number;
  readonly active: number;

  constructor({ dims, streams, active, eps }: AltUpSizes) {
    super();
    this.correct_output_scale = parameter(mx.zeros([dims]));
    this.correction_coefs = new Linear(streams, streams, { bias: false });
    this.prediction_coefs = new Linear(streams, streams ** 2, { bias: false });
    this.modality_router = new Linear(dims, streams, { bias: false });
    this.router_norm = new RMSNorm(dims, eps);
    this.streams = streams;
    this.active = active;
  }

  /** The stream that the layer computes on: (B, T, N, D) → (B, T, D) */
  activeOf(streams: Tensor): Tensor {
    return mx.sliceAxis(streams, 2, this.active, this.active + 1).squeeze(2);
  }

  /** Every stream plus a mixture of all, (B, T, N, D), summed in float32. */
  predict(streams: Tensor): Tensor {
    const { streams: N } = this;
    const coefficients = this.prediction_coefs.forward(this.#modalities(this.activeOf(streams))).unflatten(-1, [N, N]);
    const wide = streams.astype("float32");
    return coefficients.matmul(wide).add(wide).astype(streams.dtype);
  }

  /** The predictions (B, T, N, D), moved by how far the layer's result (B, T, D) is from the one for its stream. */
  correct(predictions: Tensor, activated: Tensor): Tensor {
    const coefficients = this.correction_coefs.forward(this.#modalities(activated)).add(1);
    const innovation = activated.subtract(this.activeOf(predictions));
    return innovation.expandDims(2).multiply(coefficients.expandDims(-1)).add(predictions).astype(activated.dtype);
  }

  /** (B, T, D) → (B, T, N), float32 */
  #modalities(x: Tensor): Tensor {
    const scaled = this.router_norm.forward(x).multiply(1 / x.dim(-1));
    return this.modality_router.forward(scaled).astype("float32").tanh();
  }
}
