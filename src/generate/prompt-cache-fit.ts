/** Whether a cache from a file can be a model's. */
import { basename } from "node:path";
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import type { Cache, LanguageModel } from "../models";
import { type KeyValueCache, type KvQuantization, kindOf, savedKindOf, savedStateOf, withoutMessages } from "../nn";
import type { PromptCache } from "./prompt-cache-file";
import { leaves } from "./prompt-cache-layout";

/**
 * Sees to it that the model can go on from a cache: as many layers, each with a cache that the layer reads, of the sizes
 * that the layer has. The sizes are those of a fresh cache after one token, which is planned and not computed.
 * @throws UserError where it cannot
 */
export function checkCacheOf(model: LanguageModel, { cache }: PromptCache, path: string): void {
  const fresh = model.makeCache();
  try {
    if (fresh.length !== cache.length)
      throw misfit(path, `it has ${cache.length} layers, not ${fresh.length} of this kind`);
    const empty = fresh.map(configuration);
    mx.scope(() => withoutMessages(() => void model.forward(mx.zeros([1, 1], "uint32"), { cache: fresh })));
    for (const [i, layer] of cache.entries()) {
      const problem = mx.scope(() => layerProblem(layer, fresh[i]!));
      if (problem) throw misfit(path, `layer ${i} of ${cache.length}: ${problem}`);
      // Layers that the model makes alike share masks, so they have to be alike in the file too.
      const twin = empty.indexOf(empty[i]!);
      if (configuration(layer) !== configuration(cache[twin]!))
        throw misfit(path, `layer ${i} has read other tokens than layer ${twin}, or holds them otherwise`);
    }
  } finally {
    for (const layer of fresh) layer.dispose();
  }
}

function misfit(path: string, problem: string): UserError {
  return new UserError(`${basename(path)} is the cache of another model: ${problem}`, {
    code: ExitCode.usage,
    hint: "Leave out --model to take the one that the file was made with.",
  });
}

const reads = (cache: Cache): cache is KeyValueCache => "makeMask" in cache && "offset" in cache;

const partsOf = (cache: Cache): readonly Cache[] | undefined => kindOf(cache)?.parts?.(cache);

/** A cache's kind and numbers, without its tensors. */
export function configuration(cache: Cache): string {
  const numbers = [...leaves("", savedStateOf(cache))].filter(([, leaf]) => !(leaf instanceof mx.Tensor));
  return JSON.stringify([savedKindOf(cache).name, "offset" in cache ? cache.offset : null, numbers]);
}

function layerProblem(cache: Cache, fresh: Cache): string | null {
  const [parts, own] = [partsOf(cache), partsOf(fresh)];
  if (parts && own && parts.length === own.length) {
    const problems = parts.map((part, i) => layerProblem(part, own[i]!));
    return problems.find((problem) => problem !== null) ?? null;
  }
  const [name, expected] = [savedKindOf(cache).name, savedKindOf(fresh).name];
  const isRead = reads(cache) ? reads(fresh) && !parts : name === expected && !parts;
  if (!isRead) return `it is a ${name}, and the model's a ${expected}`;
  const packing = reads(cache) ? cache.quantization : undefined;
  const like = packing ? packedLike(fresh, packing) : fresh;
  if (!like) return `it is packed, and the model's ${expected} cannot be`;
  try {
    return sizesProblem(cache, like);
  } finally {
    if (like !== fresh) like.dispose();
  }
}

/** The fresh cache in the same form; null where it has no such form. */
function packedLike(fresh: Cache, how: KvQuantization): Cache | null {
  try {
    return kindOf(fresh)?.pack?.(fresh, how, 0) ?? null;
  } catch (error) {
    if (error instanceof UserError) return null;
    throw error;
  }
}

/** Tensors at the same places have the same shapes; those of attention may differ in their rows. */
function sizesProblem(cache: Cache, like: Cache): string | null {
  const tensors = (one: Cache) =>
    new Map(
      [...leaves("state", savedStateOf(one))].filter(
        (entry): entry is [string, mx.Tensor] => entry[1] instanceof mx.Tensor,
      ),
    );
  const expected = tensors(like);
  const rowAxis = reads(cache) ? 2 : -1;
  const sizes = (x: mx.Tensor) => x.shape.filter((_, axis) => axis !== rowAxis).join(", ");
  for (const [place, own] of tensors(cache)) {
    const other = expected.get(place);
    if (!other) return `its ${place} is not in the model's`;
    if (sizes(own) !== sizes(other))
      return `its ${place} is (${own.shape.join(", ")}), and the model's (${other.shape.join(", ")})`;
    if (mx.isFloating(own.dtype) !== mx.isFloating(other.dtype))
      return `its ${place} is of ${own.dtype}, and the model's of ${other.dtype}`;
  }
  return null;
}

/** How many tokens a cache stands for, where its layers count them. */
export function tokensIn(cache: readonly Cache[]): number {
  const counts = cache.map((layer): number => {
    const parts = partsOf(layer);
    if (parts) return tokensIn(parts);
    return "offset" in layer && typeof layer.offset === "number" ? layer.offset : 0;
  });
  return Math.max(0, ...counts);
}

/** How the caches are packed, lists of caches too; undefined where none is. */
export function packingOf(cache: readonly Cache[]): KvQuantization | undefined {
  for (const layer of cache) {
    const parts = partsOf(layer);
    const found = parts ? packingOf(parts) : reads(layer) ? layer.quantization : undefined;
    if (found) return found;
  }
  return undefined;
}
