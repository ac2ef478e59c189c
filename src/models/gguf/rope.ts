/** How positions are stretched: config.json's settings and GGUF's, both ways. */
import { ExitCode, UserError } from "../../errors";
import type { RopeScaling } from "../../nn";
import type { GgufDescription, GgufField, WrittenMetadata } from "./facts";
import { stretches, usualBands } from "./llama3-scaling";

/** `rope_scaling`; undefined where positions are not stretched. */
export function readScaling(file: GgufDescription): Record<string, unknown> | undefined {
  const type = file.text("rope.scaling.type");
  const factor = file.number("rope.scaling.factor");
  if (type === undefined || type === "none" || factor === undefined || factor === 1) return undefined;
  if (type === "linear") return { type, factor };
  if (type !== "yarn") file.wrong(`"rope.scaling.type" is "${type}"; mlxlm reads linear and yarn`);
  return { type, factor, original_max_position_embeddings: file.number("rope.scaling.original_context_length") };
}

/** @throws UserError for a way that GGUF has no form for */
export function writeScaling(scaling: RopeScaling | null, headDim: number, base: number): WrittenMetadata {
  const type = scaling?.type || (scaling?.rope_type ?? "default");
  switch (type) {
    case "default":
      return { fields: {}, ropeFactors: null };
    case "linear":
    case "yarn": {
      if (scaling?.attention_factor || scaling?.truncate === false) noPlace('"attention_factor" or "truncate" of yarn');
      const fields: Record<string, GgufField> = {
        "rope.scaling.type": ["string", type],
        "rope.scaling.factor": ["float32", scaling?.factor ?? 1],
      };
      const original = scaling?.original_max_position_embeddings;
      if (original) fields["rope.scaling.original_context_length"] = ["uint32", original];
      return { fields, ropeFactors: null };
    }
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
