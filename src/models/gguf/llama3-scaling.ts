/** Llama 3's stretched rotation: files hold what it comes to, one factor for each pair of features. */

/** The tensor with the factors. */
export const ropeFactorsName = "rope_freqs.weight";

/** LongRoPE's, for contexts that are longer than that of the first training, and for the others. */
export const longFactorsName = "rope_factors_long.weight";
export const shortFactorsName = "rope_factors_short.weight";

/** All tensors that say how positions are stretched. */
export const stretchNames: readonly string[] = [ropeFactorsName, longFactorsName, shortFactorsName];

export interface Llama3Scaling {
  factor: number;
  low_freq_factor: number;
  high_freq_factor: number;
  original_max_position_embeddings: number;
}

/** The numbers of Llama 3.1 and later, whatever the factor. */
export const usualBands = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };

/** Those of Llama 4: a wave is stretched whole or not at all. */
const llama4Bands = { ...usualBands, high_freq_factor: 1 };

/** All that published models have. */
const knownBands: readonly Omit<Llama3Scaling, "factor">[] = [usualBands, llama4Bands];

/** How many times longer each wave of a head becomes, (dims / 2). */
export function stretches(dims: number, base: number, scaling: Llama3Scaling): number[] {
  return Array.from({ length: dims / 2 }, (_, i) => stretch(2 * Math.PI * base ** ((2 * i) / dims), scaling));
}

function stretch(wavelength: number, scaling: Llama3Scaling): number {
  const { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: context } = scaling;
  if (wavelength < context / high) return 1;
  if (wavelength > context / low) return factor;
  const smooth = (context / wavelength - low) / (high - low);
  return 1 / ((1 - smooth) / factor + smooth);
}

/** The scaling that `factors` are of, one for each pair of features; undefined where they are not Llama 3's. */
export function scalingOf(factors: readonly number[], base: number): Llama3Scaling | undefined {
  const factor = Math.max(...factors);
  return knownBands
    .map((bands) => ({ factor, ...bands }))
    .find((scaling) => {
      const expected = stretches(2 * factors.length, base, scaling);
      return factors.every((value, i) => Math.abs(value - expected[i]!) <= 1e-3 * factor);
    });
}
