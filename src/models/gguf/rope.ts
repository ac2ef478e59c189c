/** How positions are stretched: config.json's settings and GGUF's, both ways. */
import { ExitCode, UserError } from "../../errors";
import { longMagnitude, type RopeScaling, yarnMagnitude, yarnTemperature } from "../../nn";
import type { RopeFields } from "../args";
import { f32, type GgufDescription, type GgufFields, u32 } from "./facts";
import { longFactorsName, ropeFactorsName, shortFactorsName, stretches, usualBands } from "./llama3-scaling";

/** `rope_scaling`; undefined where positions are not stretched. */
export function readScaling(file: GgufDescription): Record<string, unknown> | undefined {
  const long = file.factors(longFactorsName);
  if (long) return readLongRope(file, long);
  const type = file.text("rope.scaling.type");
  const factor = file.number("rope.scaling.factor");
  if (type === undefined || type === "none" || factor === undefined || factor === 1) return undefined;
  if (type === "linear") return { type, factor };
  if (type !== "yarn") file.wrong(`"rope.scaling.type" is "${type}"; mlxlm reads linear and yarn`);
  const magnitude = file.number("rope.scaling.attn_factor") ?? 1;
  return {
    type,
    factor,
    original_max_position_embeddings: file.number("rope.scaling.original_context_length"),
    beta_fast: file.number("rope.scaling.yarn_beta_fast"),
    beta_slow: file.number("rope.scaling.yarn_beta_slow"),
    attention_factor: magnitude === 1 ? undefined : magnitude * yarnTemperature(factor, 1),
  };
}

function readLongRope(file: GgufDescription, long: readonly number[]): Record<string, unknown> {
  const magnitude = file.number("rope.scaling.attn_factor");
  return {
    type: "longrope",
    long_factor: long.map(single),
    short_factor: (file.factors(shortFactorsName) ?? long).map(single),
    original_max_position_embeddings: file.number("rope.scaling.original_context_length"),
    attention_factor: magnitude === undefined ? undefined : single(magnitude),
  };
}

/** The shortest number for a float32. */
const single = (value: number) => Number(Math.fround(value).toPrecision(7));

/** What YaRN's numbers are where nothing says otherwise; llama.cpp takes no other bounds of the ramp. */
const usualYarn = { beta_fast: 32, beta_slow: 1 };

/** How far apart two factors may be that are the same: files have float32. */
const precision = 1e-6;

function writeYarn(scaling: RopeScaling): GgufFields {
  const { factor: given, original_max_position_embeddings: original, truncate } = scaling;
  if (truncate === false) noPlace('"truncate" of yarn');
  for (const key of ["beta_fast", "beta_slow"] as const) {
    const value = scaling[key] ?? usualYarn[key];
    if (value !== usualYarn[key]) noPlace(`"${key}" ${value} of yarn (not ${usualYarn[key]})`);
  }
  const factor = given ?? 1;
  const magnitude = scaling.attention_factor ?? yarnMagnitude({ ...scaling, factor });
  const relative = magnitude / yarnTemperature(factor, 1);
  return {
    "rope.scaling.type": ["string", "yarn"],
    "rope.scaling.factor": f32(factor),
    "rope.scaling.original_context_length": original ? u32(original) : undefined,
    "rope.scaling.attn_factor": Math.abs(relative - 1) > precision ? f32(relative) : undefined,
  };
}

function writeLongRope(scaling: RopeScaling, positions: number, stated: unknown): Stretch {
  const { long_factor: long, short_factor: short } = scaling;
  const original = typeof stated === "number" ? stated : (scaling.original_max_position_embeddings ?? 4096);
  if (!Array.isArray(long) || !Array.isArray(short)) noPlace('"long_factor" and "short_factor" that are no lists');
  const magnitude = scaling.attention_factor ?? scaling.long_mscale ?? longMagnitude(positions, original);
  return {
    fields: {
      "rope.scaling.type": ["string", "longrope"],
      "rope.scaling.original_context_length": u32(original),
      "rope.scaling.attn_factor": f32(magnitude),
    },
    tensors: { [longFactorsName]: long as number[], [shortFactorsName]: short as number[] },
  };
}

/** What stretching is asked for. */
interface Stretched {
  /** How many features of a head turn. */
  headDim: number;
  max_position_embeddings: number;
  original_max_position_embeddings?: unknown;
}

/** Settings without a dynamic stretch, of models whose files leave it out: it begins behind the context that they state. */
export function withinContext(config: object): Pick<RopeFields, "rope_scaling"> {
  const { rope_scaling: scaling } = config as RopeFields;
  return { rope_scaling: (scaling?.type || scaling?.rope_type) === "dynamic" ? null : scaling };
}

export interface Stretch {
  fields: GgufFields;
  /** Factors on the waves, (dims / 2) each, by the names of their tensors. */
  tensors: Record<string, readonly number[]>;
}

/** @throws UserError for a way that GGUF has no form for */
export function writeScaling(
  scaling: RopeScaling | null,
  { headDim, max_position_embeddings: positions, ...own }: Stretched,
  base: number,
): Stretch {
  const type = scaling?.type || (scaling?.rope_type ?? "default");
  switch (type) {
    case "default":
    case "mrope":
      return { fields: {}, tensors: {} };
    case "linear": {
      const factor = scaling?.factor ?? 1;
      return {
        fields: { "rope.scaling.type": ["string", type], "rope.scaling.factor": f32(factor) },
        tensors: {},
      };
    }
    case "yarn":
    case "deepseek_yarn":
      return { fields: writeYarn(scaling!), tensors: {} };
    case "llama3": {
      const bands = {
        factor: scaling!.factor ?? 1,
        low_freq_factor: scaling!.low_freq_factor ?? usualBands.low_freq_factor,
        high_freq_factor: scaling!.high_freq_factor ?? usualBands.high_freq_factor,
        original_max_position_embeddings:
          scaling!.original_max_position_embeddings ?? usualBands.original_max_position_embeddings,
      };
      return { fields: {}, tensors: { [ropeFactorsName]: stretches(headDim, base, bands) } };
    }
    case "longrope":
    case "su":
      return writeLongRope(scaling!, positions, own.original_max_position_embeddings);
    default:
      return noPlace(`a rotation of type "${type}"`);
  }
}

/** @throws UserError, for a setting that GGUF has no form for */
export function noPlace(what: string): never {
  throw new UserError(`this model cannot be saved as GGUF: ${what} has no place there`, {
    code: ExitCode.notFound,
    hint: "Save the model without a GGUF file.",
  });
}
