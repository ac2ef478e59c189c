/** How positions are stretched: config.json's settings and GGUF's, both ways. */
import { ExitCode, UserError } from "../../errors";
import { type RopeScaling, yarnMagnitude, yarnTemperature } from "../../nn";
import { f32, type GgufDescription, type GgufFields, u32 } from "./facts";
import { stretches, usualBands } from "./llama3-scaling";

/** `rope_scaling`; undefined where positions are not stretched. */
export function readScaling(file: GgufDescription): Record<string, unknown> | undefined {
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

export interface Stretch {
  fields: GgufFields;
  ropeFactors: number[] | null;
}

/** @throws UserError for a way that GGUF has no form for */
export function writeScaling(scaling: RopeScaling | null, headDim: number, base: number): Stretch {
  const type = scaling?.type || (scaling?.rope_type ?? "default");
  switch (type) {
    case "default":
    case "mrope":
      return { fields: {}, ropeFactors: null };
    case "linear": {
      const factor = scaling?.factor ?? 1;
      return {
        fields: { "rope.scaling.type": ["string", type], "rope.scaling.factor": f32(factor) },
        ropeFactors: null,
      };
    }
    case "yarn":
    case "deepseek_yarn":
      return { fields: writeYarn(scaling!), ropeFactors: null };
    case "llama3": {
      const bands = {
        factor: scaling!.factor ?? 1,
        low_freq_factor: scaling!.low_freq_factor ?? usualBands.low_freq_factor,
        high_freq_factor: scaling!.high_freq_factor ?? usualBands.high_freq_factor,
        original_max_position_embeddings:
          scaling!.original_max_position_embeddings ?? usualBands.original_max_position_embeddings,
      };
      return { fields: {}, ropeFactors: stretches(headDim, base, bands) };
    }
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
