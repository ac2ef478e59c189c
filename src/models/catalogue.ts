/** What each model type can do here: from the registry, the facts beside the models, and the kinds of their caches. */
import { kindNamed } from "../nn";
import { familyOf } from "./families";
import { measuredFacts } from "./generated/facts";
import type { MeasuredFacts, Share } from "./measured";
import { architecture, modelTypes, ownName } from "./registry";

export interface CatalogueEntry {
  model_type: string;
  family: string;
  /** The model type that it is another name of. */
  same_as: string | null;
  /** The kinds of its layers' caches, by mlx-lm's names; empty where they are not known. */
  caches: string[];
  /** Several requests at a time. */
  batching: boolean;
  /** Which layers `--kv-bits` packs. */
  kv_bits: "all" | "some" | "none";
  /** Adapters train. */
  lora: boolean;
  /** The commands that quantize it with data. */
  quantizers: string[];
  /** Which GGUF files are known, as `general.architecture` names them, and what is done with them. */
  gguf: { architecture: string; reads: boolean; writes: boolean } | null;
  /** It drafts with heads of its own. */
  mtp: boolean;
  /** How much of its layers `mlxlm launch` divides among processes; the rest is whole on each. */
  ranks: Share;
}

/** Those that work on the linear layers of any model. */
const generalQuantizers = ["dwq", "dynamic_quant", "gptq"];

/**
 * The entries of all model types, in alphabetical order.
 * @param measured what `bun run docs` found, in a table of its own because it takes a configuration of each
 */
export function catalogue(measured: MeasuredFacts = measuredFacts): Promise<CatalogueEntry[]> {
  return Promise.all(modelTypes.map((modelType) => entryOf(modelType, measured)));
}

async function entryOf(modelType: string, measured: MeasuredFacts): Promise<CatalogueEntry> {
  const name = ownName(modelType);
  const facts = await architecture(modelType);
  const { caches, linear, ranks } = measured[name] ?? { caches: [], linear: false, ranks: "none" };
  const kinds = caches.map((one) => kindNamed(one)!);
  const packed = kinds.filter(({ pack }) => pack !== undefined);
  const { gguf } = facts;
  return {
    model_type: modelType,
    family: familyOf(modelType),
    same_as: name === modelType ? null : name,
    caches: [...caches],
    batching: kinds.length > 0 && kinds.every(({ merge }) => merge !== undefined),
    kv_bits: packed.length === 0 ? "none" : packed.length === kinds.length ? "all" : "some",
    lora: linear,
    quantizers: [...(facts.awq ? ["awq"] : []), ...(linear ? generalQuantizers : [])],
    gguf: gguf
      ? { architecture: gguf.architecture, reads: gguf.read !== undefined, writes: gguf.write !== undefined }
      : null,
    mtp: (facts as { mtp?: unknown }).mtp !== undefined,
    ranks,
  };
}
