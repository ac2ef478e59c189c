/**
 * Rotary position embeddings (Su et al. 2021, arXiv:2104.09864) and the ways to stretch them over longer contexts.
 * Configurations name the way by `rope_scaling.type`, or `rope_type`.
 */
import { z } from "zod";
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { Module } from "./module";
import * as frequencies from "./rope-frequencies";

/** No context is so many times as long as that of the first training. */
const longestStretch = 1e6;

/**
 * How positions are stretched, as config.json says it. A field that is not listed is refused: most of them change what a
 * model computes.
 */
export const RopeScaling = z.strictObject({
  type: z.string().nullish(),
  rope_type: z.string().nullish(),
  factor: z.number().positive().max(longestStretch).nullish(),
  /** llama3, yarn, longrope: the context length of the first training. */
  original_max_position_embeddings: z.number().positive().nullish(),
  /** llama3 */
  low_freq_factor: z.number().nullish(),
  high_freq_factor: z.number().nullish(),
  /** yarn */
  beta_fast: z.number().nullish(),
  beta_slow: z.number().nullish(),
  /** Whether the bounds of the ramp are rounded to whole dimensions; they are where absent. */
  truncate: z.boolean().nullish(),
  mscale: z.number().nullish(),
  mscale_all_dim: z.number().nullish(),
  /** yarn, longrope: the factor on queries and keys, where it is not computed from the others. */
  attention_factor: z.number().positive().nullish(),
  /** longrope. The factors for short contexts are not used: `longRoPE` says why. */
  long_factor: z.union([z.number(), z.array(z.number())]).nullish(),
  short_factor: z.union([z.number(), z.array(z.number())]).nullish(),
  /** longrope: the same factor in Phi-3.5-MoE, for short and for long contexts. */
  short_mscale: z.number().positive().nullish(),
  long_mscale: z.number().positive().nullish(),
  /** proportional */
  partial_rotary_factor: z.number().positive().max(1).nullish(),
  /** mrope: text has one position for all sections, however they lie. */
  mrope_section: z.array(z.number()).nullish(),
  mrope_interleaved: z.boolean().nullish(),
  /** The angle base, where the configuration says it here (transformers 5). */
  rope_theta: z.number().positive().nullish(),
  /** Says that the model was trained further with the stretch; the others say how. */
  finetuned: z.boolean().nullish(),
});

export type RopeScaling = z.infer<typeof RopeScaling>;

/** A rotation of halves by angles in proportion to the position. */
export interface PlainRotation {
  /** How many features of a head turn. */
  dims: number;
  base: number | null;
  scale: number;
  /** In place of the base, (dims / 2). */
  freqs: Tensor | null;
}

/** Rotates heads x (B, H, T, D) by their positions, the first row's being `offset` (a tensor: one for each of B). */
export interface RotaryEmbedding extends Module {
  forward(x: Tensor, offset?: number | Tensor): Tensor;
  /** All that there is to it, where it is no more than this. */
  readonly plain: PlainRotation | null;
}

/** The plain kind: angle = position · scale · base^(−2i / dims). */
export class RoPE extends Module implements RotaryEmbedding {
  readonly traditional: boolean;
  readonly base: number;
  readonly scale: number;
  readonly plain: PlainRotation | null;

  /** Rotates the first `dims` features of a head. `traditional`: pairs are neighbours, not halves. */
  constructor(
    readonly dims: number,
    { traditional = false, base = 10_000, scale = 1 }: { traditional?: boolean; base?: number; scale?: number } = {},
  ) {
    super();
    this.traditional = traditional;
    this.base = base;
    this.scale = scale;
    this.plain = traditional ? null : { dims, base, scale, freqs: null };
  }

  forward(x: Tensor, offset: number | Tensor = 0): Tensor {
    const { traditional, base, scale } = this;
    return mx.fast.rope(x, this.dims, { traditional, base, scale, offset });
  }
}

/** RoPE with wavelengths of its own, and optionally a factor on what it rotates. */
export class FrequencyRoPE extends Module implements RotaryEmbedding {
  readonly traditional: boolean;
  readonly magnitude: number;
  /** (dims / 2): angle = position / frequency */
  readonly _frequencies: Tensor;
  readonly plain: PlainRotation | null;

  constructor(
    readonly dims: number,
    makeFrequencies: () => Tensor,
    { traditional = false, magnitude = 1 }: { traditional?: boolean; magnitude?: number } = {},
  ) {
    super();
    this._frequencies = mx.keep(mx.scope(makeFrequencies));
    this.traditional = traditional;
    this.magnitude = magnitude;
    const isPlain = !traditional && magnitude === 1;
    this.plain = isPlain ? { dims, base: null, scale: 1, freqs: this._frequencies } : null;
  }

  forward(x: Tensor, offset: number | Tensor = 0): Tensor {
    const { dims, traditional, magnitude } = this;
    const scaled = magnitude === 1 ? x : x.multiplyAt([mx.ellipsis, mx.slice(0, dims)], magnitude);
    return mx.fast.rope(scaled, dims, { traditional, base: null, offset, freqs: this._frequencies });
  }
}

/** Dynamic NTK scaling: the base grows with the length of the sequence beyond `maxPositions`. */
export class DynamicNTKRoPE extends Module implements RotaryEmbedding {
  readonly plain = null;

  constructor(
    readonly dims: number,
    readonly options: { traditional: boolean; base: number; factor: number; maxPositions: number },
  ) {
    super();
  }

  forward(x: Tensor, offset: number | Tensor = 0): Tensor {
    if (typeof offset !== "number") {
      // The base depends on the length, so each row of the batch has its own.
      const offsets = offset.toList() as number[];
      return mx.concatenate(x.split(offsets.length, 0).map((row, i) => this.forward(row, offsets[i])));
    }
    const { traditional, base, factor, maxPositions } = this.options;
    const length = Math.max(x.dim(-2) + offset, maxPositions);
    const growth = (factor * length) / maxPositions - (factor - 1);
    return mx.fast.rope(x, this.dims, {
      traditional,
      base: base * growth ** (this.dims / (this.dims - 2)),
      offset,
    });
  }
}

/**
 * LongRoPE, also called su: a factor for every frequency (Ding et al. 2024, arXiv:2402.13753). The factors for long
 * contexts serve all lengths, as in mlx-lm: keys in a cache cannot be rotated again when a short one grows.
 */
function longRoPE(
  dims: number,
  {
    base,
    maxPositions,
    originalMaxPositions,
    longFactor,
    magnitude = longMagnitude(maxPositions, originalMaxPositions),
  }: {
    base: number;
    maxPositions: number;
    originalMaxPositions: number;
    longFactor: number | readonly number[];
    magnitude?: number;
  },
): FrequencyRoPE {
  return new FrequencyRoPE(dims, () => frequencies.longrope(dims, base, longFactor), { magnitude });
}

/** LongRoPE's factor on queries and keys. */
export function longMagnitude(maxPositions: number, originalMaxPositions: number): number {
  const stretch = maxPositions / originalMaxPositions;
  return stretch <= 1 ? 1 : Math.sqrt(1 + Math.log(stretch) / Math.log(originalMaxPositions));
}

export interface RopeOptions {
  dims: number;
  base: number;
  traditional?: boolean;
  scaling?: RopeScaling | null;
  /** The longest context that the model was trained for. */
  maxPositions?: number | null;
}

/**
 * The rotary embedding that a configuration asks for.
 * @throws UserError for a type that is not known or lacks one of its numbers
 */
export function initializeRope(options: RopeOptions): RotaryEmbedding {
  const { dims, base, traditional = false } = options;
  const scaling = options.scaling ?? {};
  const type = scaling.type || (scaling.rope_type ?? "default");
  const required = <T>(value: T | null | undefined, name: string): T => {
    if (value !== null && value !== undefined) return value;
    throw new UserError(`config.json: rotary embeddings of type "${type}" need "${name}"`);
  };
  const factor = () => required(scaling.factor, "factor");
  const maxPositions = () => required(options.maxPositions, "max_position_embeddings");

  if (!Number.isInteger(dims / 2) || dims < 2) {
    throw new UserError(`config.json: ${dims} features of a head cannot be rotated: they must be an even number`);
  }

  switch (type) {
    case "default":
    case "mrope": {
      const sections = scaling.mrope_section;
      if (type === "mrope" && sections?.length !== 3) {
        throw new UserError(
          `config.json: "mrope_section" must be a list of 3 numbers, not ${JSON.stringify(sections)}`,
        );
      }
      return new RoPE(dims, { traditional, base });
    }
    case "linear":
      return new RoPE(dims, { traditional, base, scale: 1 / factor() });
    case "dynamic":
      return new DynamicNTKRoPE(dims, { traditional, base, factor: factor(), maxPositions: maxPositions() });
    case "llama3": {
      const bands = { ...scaling, factor: factor() };
      return new FrequencyRoPE(dims, () => frequencies.llama3(dims, base, bands), { traditional });
    }
    case "yarn":
    case "deepseek_yarn":
    case "telechat3-yarn": {
      const yarn = { ...scaling, factor: factor() };
      const magnitude = scaling.attention_factor ?? frequencies.yarnMagnitude(yarn);
      return new FrequencyRoPE(dims, () => frequencies.yarn(dims, base, yarn), { traditional, magnitude });
    }
    case "longrope":
      return longRoPE(dims, {
        base,
        maxPositions: maxPositions(),
        originalMaxPositions: required(scaling.original_max_position_embeddings, "original_max_position_embeddings"),
        longFactor: required(scaling.long_factor, "long_factor"),
        magnitude: scaling.attention_factor ?? scaling.long_mscale ?? undefined,
      });
    case "proportional": {
      const rotated = Math.trunc(dims * (scaling.partial_rotary_factor ?? 1));
      return new FrequencyRoPE(dims, () => frequencies.proportional(dims, base, rotated, scaling.factor ?? 1), {
        traditional,
      });
    }
    default:
      throw new UserError(`config.json: rotary embeddings of type "${type}" are not supported`, {
        code: ExitCode.notFound,
        hint: "A model that is trained so needs it: without it the text would be wrong. Take another model.",
      });
  }
}
