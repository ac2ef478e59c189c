/** Frequencies of the rotary embeddings for long contexts, (dims / 2) each. Larger numbers turn more slowly. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** base^(2i / dims), for i below `count` / 2. */
function powers(dims: number, base: number, count = dims): Tensor {
  return mx.power(base, mx.arange(0, count, 2, { dtype: "float32" }).divide(dims));
}

interface Bands {
  factor: number;
  low_freq_factor?: number | null;
  high_freq_factor?: number | null;
  original_max_position_embeddings?: number | null;
}

/** Llama 3.1: long wavelengths are stretched by `factor`, short ones not, those between in part. */
export function llama3(dims: number, base: number, bands: Bands): Tensor {
  const { factor } = bands;
  const low = bands.low_freq_factor ?? 1;
  const high = bands.high_freq_factor ?? 4;
  const context = bands.original_max_position_embeddings ?? 8192;

  const plain = powers(dims, base);
  const wavelengths = plain.multiply(2 * Math.PI);
  const stretched = mx.where(wavelengths.greater(context / low), plain.multiply(factor), plain);
  const between = wavelengths.greater(context / high).bitwiseAnd(wavelengths.less(context / low));
  const smooth = mx
    .divide(context, wavelengths)
    .subtract(low)
    .divide(high - low);
  const blended = stretched.divide(mx.subtract(1, smooth).divide(factor).add(smooth));
  return mx.where(between, blended, stretched);
}

interface Yarn {
  factor: number;
  original_max_position_embeddings?: number | null;
  beta_fast?: number | null;
  beta_slow?: number | null;
  truncate?: boolean | null;
  mscale?: number | null;
  mscale_all_dim?: number | null;
}

/** YaRN: interpolation for slow dimensions, none for fast ones, a ramp between. Peng et al. 2023, arXiv:2309.00071. */
export function yarn(dims: number, base: number, options: Yarn): Tensor {
  const { factor } = options;
  const context = options.original_max_position_embeddings ?? 4096;
  /** The dimension whose angle turns so many times within the original context. */
  const dimension = (turns: number) => (dims * Math.log(context / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const [down, up] = options.truncate === false ? [Number, Number] : [Math.floor, Math.ceil];
  const low = Math.max(down(dimension(options.beta_fast ?? 32)), 0);
  let high = Math.min(up(dimension(options.beta_slow ?? 1)), dims - 1);
  if (low === high) high += 0.001;

  const ramp = mx
    .arange(0, Math.floor(dims / 2), 1, { dtype: "float32" })
    .subtract(low)
    .divide(high - low);
  const kept = mx.subtract(1, mx.clip(ramp, 0, 1));
  const plain = powers(dims, base);
  const interpolated = plain.multiply(factor);
  const blend = interpolated.multiply(kept).add(plain.multiply(mx.subtract(1, kept)));
  return interpolated.multiply(plain).divide(blend);
}

/** How much sharper attention is to be over a context that is stretched by `factor`, by YaRN. */
export const yarnTemperature = (factor: number, weight: number): number =>
  factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1;

/** The factor that YaRN puts on queries and keys. */
export function yarnMagnitude({ factor, mscale, mscale_all_dim }: Yarn): number {
  return yarnTemperature(factor, mscale ?? 1) / yarnTemperature(factor, mscale_all_dim ?? 0);
}

/** LongRoPE: every frequency has its own factor. */
export function longrope(dims: number, base: number, factors: number | readonly number[]): Tensor {
  return mx.array(factors, "float32").multiply(powers(dims, base));
}

/** Only the first `rotated` of the features turn; the others have no angle at all. */
export function proportional(dims: number, base: number, rotated: number, factor: number): Tensor {
  if (rotated > dims) throw new RangeError(`${rotated} rotated features of ${dims}`);
  const still = mx.full([Math.floor((dims - rotated) / 2)], Number.POSITIVE_INFINITY, "float32");
  return mx.concatenate([powers(dims, base, rotated).multiply(factor), still]);
}
