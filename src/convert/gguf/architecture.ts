/** The configuration that a GGUF file's metadata come to, by the facts of its architecture. */
import { ExitCode, UserError } from "../../errors";
import type { JsonObject } from "../../json-file";
import { type GgufModelType, ggufArchitecture, ggufNames } from "../../models";
import type { ModelConfig } from "../config";
import { endTokenIds } from "./end-tokens";
import type { GgufHeader } from "./header";
import { Metadata } from "./metadata";
import type { SmallTensors } from "./stretches";

/** A file's architecture: how its configuration and its tensors are ours. */
export interface GgufArchitecture extends Pick<GgufModelType, "keepsDtype"> {
  config: ModelConfig;
  facts: GgufModelType["gguf"];
}

/**
 * @param small numbers of small tensors, by their names
 * @throws UserError for an architecture that is not supported, or metadata that is missing or wrong
 */
export async function architectureOf(header: GgufHeader, small: SmallTensors, path: string): Promise<GgufArchitecture> {
  const metadata = new Metadata(header.metadata, path);
  const name = metadata.text("general.architecture") ?? metadata.wrong('"general.architecture" is missing');
  const file = {
    number: (key: string) => metadata.number(`${name}.${key}`),
    need: (key: string) => metadata.need(`${name}.${key}`),
    text: (key: string) => metadata.text(`${name}.${key}`),
    list: (key: string) => metadata.list(`${name}.${key}`),
    factors: (tensor: string) => small.get(tensor),
    shape: (tensor: string) => header.tensors.get(tensor)?.shape,
    wrong: (problem: string) => metadata.wrong(problem),
  };
  // What reads the file goes through its layers; a file may claim any number of them.
  const layers = file.number("block_count") ?? 0;
  const { size: count } = header.tensors;
  if (layers > count) metadata.wrong(`"${name}.block_count" is ${layers} layers, but there are only ${count} tensors`);
  const found = (await ggufArchitecture(name, file)) ?? refuse(name);
  const config: ModelConfig = { model_type: found.modelType, ...found.gguf.read(file), ...tokenIds(metadata) };
  for (const [key, value] of Object.entries(config)) if (value === undefined) delete config[key];
  return { config, facts: found.gguf, keepsDtype: found.keepsDtype };
}

function refuse(name: string): never {
  throw new UserError(`GGUF files of the architecture "${name}" are not supported`, {
    code: ExitCode.notFound,
    hint: `mlxlm reads those of ${ggufNames.join(", ")}; of other models, take the safetensors.`,
  });
}

function tokenIds(metadata: Metadata): JsonObject {
  const id = (name: string) => metadata.number(`tokenizer.ggml.${name}_token_id`);
  const ends = endTokenIds(metadata);
  return {
    bos_token_id: id("bos"),
    eos_token_id: ends.length > 1 ? ends : ends[0],
    pad_token_id: id("padding"),
  };
}
