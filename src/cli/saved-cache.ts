/** `--prompt-cache-file`: a KV cache that was saved, and the model that it belongs to. Of several ranks the first reads it. */
import { basename, resolve } from "node:path";
import { ExitCode, UserError } from "../errors";
import type { OpenedModel } from "../generate/open-model";
import { loadPromptCache, type PromptCache } from "../generate/prompt-cache-file";
import { checkCacheOf, packingOf, tokensIn } from "../generate/prompt-cache-fit";
import { isLead } from "../mlx/group-environment";
import type { Cache } from "../models";
import type { Values } from "./flags";
import { fromLead } from "./group";
import type { kvQuantizationFlags } from "./kv-quantization";

interface Wanted extends Values<typeof kvQuantizationFlags> {
  promptCacheFile?: string;
  model?: string;
  draftModel?: string;
}

export interface SavedCache {
  /** The model that it was made with, as it was named then. */
  model: string | undefined;
  /** How many tokens it holds. */
  tokens: number;
  /** A further token that ends answers. */
  eosToken: string | null;
  /**
   * The cache for the loaded model, or for this rank's part of it. To be called once.
   * @throws UserError where the model cannot go on from it; both are freed then
   */
  cacheFor(opened: Pick<OpenedModel, "model" | "caches">): Cache[];
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
  const saved = isLead() ? await read(flags) : null;
  const facts = await fromLead(() => {
    const { model, tokenizer_config: tokenizer } = saved!.metadata;
    return { model, tokens: tokensIn(saved!.cache), eosToken: eosToken(tokenizer) };
  });
  return {
    ...facts,
    model: flags.model ?? facts.model,
    cacheFor({ model, caches }) {
      let cache = saved?.cache ?? [];
      try {
        if (caches) {
          const parts = caches.parts(saved?.cache ?? null);
          release(cache);
          cache = parts;
        }
        checkCacheOf(model, { cache, metadata: {} }, file);
        return cache;
      } catch (error) {
        release(cache);
        model.dispose();
        throw error;
      }
    },
  };
}

function release(cache: readonly Cache[]): void {
  for (const layer of cache) layer.dispose();
}

async function read(flags: Wanted): Promise<PromptCache> {
  const file = flags.promptCacheFile!;
  const saved = await loadPromptCache(file);
  try {
    checkQuantization(flags, saved.cache);
    checkName(flags.model, saved.metadata.model, file);
    return saved;
  } catch (error) {
    release(saved.cache);
    throw error;
  }
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
