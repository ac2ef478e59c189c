/** `--prompt-cache-file`: a KV cache that was saved, and the model that it belongs to. */
import { basename, resolve } from "node:path";
import { ExitCode, UserError } from "../errors";
import { loadPromptCache } from "../generate/prompt-cache-file";
import { checkCacheOf, packingOf, tokensIn } from "../generate/prompt-cache-fit";
import type { Cache, LanguageModel } from "../models";
import type { Values } from "./flags";
import type { kvQuantizationFlags } from "./kv-quantization";

interface Wanted extends Values<typeof kvQuantizationFlags> {
  promptCacheFile?: string;
  model?: string;
  draftModel?: string;
}

export interface SavedCache {
  cache: Cache[];
  /** The model that it was made with, as it was named then. */
  model: string | undefined;
  /** How many tokens it holds. */
  tokens: number;
  /** A further token that ends answers. */
  eosToken: string | null;
  /** @throws UserError where the loaded model cannot go on from it; the cache is freed then */
  checkModel(model: LanguageModel): void;
}

/** @throws UserError where the file is not there or broken, or other flags do not go with it */
export async function openSavedCache(flags: Wanted): Promise<SavedCache> {
  const file = flags.promptCacheFile!;
  if (flags.draftModel !== undefined) {
    throw new UserError("--draft-model does not go with --prompt-cache-file", {
      code: ExitCode.usage,
      hint: "The draft model would have to read the prompt too: leave out one of them.",
    });
  }
  const saved = await loadPromptCache(file);
  const { cache, metadata } = saved;
  const release = () => {
    for (const layer of cache) layer.dispose();
  };
  try {
    checkQuantization(flags, cache);
    checkName(flags.model, metadata.model, file);
  } catch (error) {
    release();
    throw error;
  }
  return {
    cache,
    model: flags.model ?? metadata.model,
    tokens: tokensIn(cache),
    eosToken: eosToken(metadata.tokenizer_config),
    checkModel(model) {
      try {
        checkCacheOf(model, saved, file);
      } catch (error) {
        release();
        model.dispose();
        throw error;
      }
    },
  };
}

function checkQuantization({ kvBits, kvGroupSize }: Wanted, cache: readonly Cache[]): void {
  const packing = kvBits === undefined ? undefined : packingOf(cache);
  if (!packing) return;
  const { bits, groupSize } = packing;
  if (bits === kvBits && groupSize === kvGroupSize) return;
  throw new UserError(
    `the saved cache has ${bits} bits in groups of ${groupSize}, not ${kvBits} in groups of ${kvGroupSize}`,
    { code: ExitCode.usage, hint: "Leave out --kv-bits and --kv-group-size." },
  );
}

function checkName(given: string | undefined, made: string | undefined, file: string): void {
  if (given === undefined || made === undefined || given === made || resolve(given) === resolve(made)) return;
  throw new UserError(`${basename(file)} was made with the model ${made}, not ${given}`, {
    code: ExitCode.usage,
    hint: "Leave out --model to take that one.",
  });
}

function eosToken(tokenizerConfig: string | undefined): string | null {
  try {
    const { eos_token } = JSON.parse(tokenizerConfig ?? "{}");
    return typeof eos_token === "string" ? eos_token : null;
  } catch {
    return null;
  }
}
