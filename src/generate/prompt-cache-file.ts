/**
 * Caches in files, in the layout of mlx-lm 0.32.2, which reads them and writes them: the leaves of all states under dotted
 * places, what is no tensor as a small one, and in the metadata the kinds of caches and which leaves those are.
 */
import { existsSync } from "node:fs";
import { basename } from "node:path";
import { replaceFile } from "../atomic-file";
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { readSafetensorsHeader } from "../mlx/safetensors-header";
import type { Cache, LanguageModel } from "../models";
import { isState, kindOf, restored, type State, stateOf } from "./cache-kinds";

export interface PromptCache {
  cache: Cache[];
  /** What was to be remembered; mlx-lm keeps "model" and "tokenizer_config" there. */
  metadata: Record<string, string>;
}

/** The layout's sections in the metadata, by their first index. */
const [user, classes, scalars] = ["0", "1", "2"] as const;

/** The file's path: MLX adds the ending where it is missing. */
export function promptCachePath(path: string): string {
  return path.endsWith(".safetensors") ? path : `${path}.safetensors`;
}

/**
 * Writes the caches; the file appears whole, or not at all.
 * @throws UserError where it cannot be written, or a kind of cache has no place in such a file
 */
export async function savePromptCache(
  path: string,
  cache: readonly Cache[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  await replaceFile(promptCachePath(path), (temporary) =>
    mx.scope(() => {
      const arrays = new Map<string, Tensor>();
      // mlx-lm drops empty lists: the first entry stands for none.
      const facts: Record<string, string> = { [`${scalars}.0`]: "" };
      let count = 0;
      for (const [name, value] of Object.entries(metadata)) facts[`${user}.${name}`] = value;
      for (const [i, layer] of cache.entries()) {
        facts[`${classes}.${i}`] = kindOf(layer);
        for (const [place, leaf] of leaves(`${i}`, stateOf(layer))) {
          if (leaf instanceof mx.Tensor) arrays.set(place, leaf);
          else {
            const [word, tensor] = written(leaf);
            arrays.set(place, tensor);
            count += 1;
            facts[`${scalars}.${count}.0`] = place;
            facts[`${scalars}.${count}.1`] = word;
          }
        }
      }
      mx.saveSafetensors(temporary, arrays, facts);
    }),
  );
}

function* leaves(place: string, state: State): Generator<[place: string, leaf: Exclude<State, State[]>]> {
  if (!Array.isArray(state)) yield [place, state];
  else for (const [i, part] of state.entries()) yield* leaves(`${place}.${i}`, part);
}

function written(leaf: number | boolean | string | null): [word: string, tensor: Tensor] {
  if (leaf === null) return ["none", mx.array([])];
  if (typeof leaf === "string") {
    const codes = Array.from(leaf, (character) => character.codePointAt(0)!);
    return ["string", mx.array(codes, "int32")];
  }
  if (typeof leaf === "boolean") return ["scalar", mx.array(leaf)];
  return ["scalar", mx.array(leaf, Number.isInteger(leaf) ? "int32" : "float32")];
}

/**
 * Reads caches; they belong to the caller.
 * @throws UserError where there is no such file, or it is broken, or of another program or version
 */
export async function loadPromptCache(given: string): Promise<PromptCache> {
  const path = promptCachePath(given);
  if (!existsSync(path)) {
    throw new UserError(`there is no prompt-cache file ${path}`, {
      code: ExitCode.notFound,
      hint: "Make one: mlxlm cache_prompt --prompt-cache-file FILE --prompt TEXT",
    });
  }
  const hint = `Make it anew: mlxlm cache_prompt --prompt-cache-file ${path} --prompt TEXT`;
  const { metadata: facts } = await readSafetensorsHeader(path, hint);
  const wrong = (problem: string): never => {
    throw new UserError(`${basename(path)} is no prompt cache that mlxlm can read: ${problem}`, { hint });
  };
  if (facts.get(`${scalars}.0`) !== "") {
    wrong(
      facts.has(`${scalars}.0`)
        ? "it has the layout of mlx-lm before 0.32.1"
        : "its metadata does not say what its tensors are",
    );
  }
  const words = wordsOf(facts, wrong);
  return mx.scope(() => {
    const states: State[] = [];
    for (const [place, tensor] of mx.loadSafetensors(path).arrays) {
      put(
        states,
        place.split("."),
        read(tensor, words.get(place), () => wrong(`${place} is not what its metadata says`)),
        wrong,
      );
    }
    if (states.length === 0) wrong("it has no layers");
    const layers = Array.from(states, (state, i) => {
      const kind = facts.get(`${classes}.${i}`) ?? wrong(`layer ${i} has no kind`);
      return state !== undefined && isState(kind, state)
        ? { kind, state }
        : wrong(`layer ${i} holds no state of a ${kind}`);
    });
    const cache = layers.map(({ kind, state }) => restored(kind, state));
    return { cache, metadata: section(facts, user) };
  });
}

/**
 * Sees to it that a cache from a file can be this model's, as far as kinds and numbers of layers tell.
 * @throws UserError where it cannot
 */
export function checkCacheOf(model: LanguageModel, { cache }: PromptCache, path: string): void {
  const fresh = model.makeCache();
  const reads = (layer: Cache) => "makeMask" in layer && "offset" in layer;
  const fits = (layer: Cache, i: number) =>
    reads(layer) ? reads(fresh[i]!) : layer.constructor === fresh[i]!.constructor;
  const isOf = fresh.length === cache.length && cache.every(fits);
  disposeAll(fresh);
  if (isOf) return;
  throw new UserError(
    `${basename(path)} is the cache of another model: it has ${cache.length} layers, not ${fresh.length} of this kind`,
    {
      code: ExitCode.usage,
      hint: "Leave out --model to take the one that the file was made with.",
    },
  );
}

/** How many tokens a cache stands for, where its layers count them. */
export function tokensIn(cache: readonly Cache[]): number {
  const counts = cache.map((layer) => ("offset" in layer && typeof layer.offset === "number" ? layer.offset : 0));
  return Math.max(0, ...counts);
}

function disposeAll(cache: readonly Cache[]): void {
  for (const layer of cache) layer.dispose();
}

/** Which places hold no tensors, and what instead. */
function wordsOf(facts: ReadonlyMap<string, string>, wrong: (problem: string) => never): Map<string, string> {
  const words = new Map<string, string>();
  for (let i = 1; facts.has(`${scalars}.${i}.0`); i++) {
    const word = facts.get(`${scalars}.${i}.1`) ?? "";
    if (!["scalar", "string", "none"].includes(word)) wrong(`it has a value of the unknown kind "${word}"`);
    words.set(facts.get(`${scalars}.${i}.0`)!, word);
  }
  return words;
}

function read(tensor: Tensor, word: string | undefined, wrong: () => never): Exclude<State, State[]> {
  if (word === undefined) return tensor;
  if (word === "none") return null;
  if (word === "scalar") return tensor.size === 1 ? (tensor.item() as number) : wrong();
  const codes = tensor.ndim === 1 ? (tensor.toList() as number[]) : wrong();
  if (!codes.every((code) => Number.isInteger(code) && code >= 0 && code <= 0x10ffff)) wrong();
  return String.fromCodePoint(...codes);
}

/** Puts a leaf at its place in nested lists. */
function put(list: State[], [first, ...rest]: string[], leaf: State, wrong: (problem: string) => never): void {
  const index = /^\d{1,4}$/.test(first!) ? Number(first) : wrong(`it has a tensor ${[first, ...rest].join(".")}`);
  if (rest.length === 0) {
    list[index] = leaf;
    return;
  }
  list[index] ??= [];
  const next = list[index];
  if (!Array.isArray(next)) wrong(`${first} is a value and a list at once`);
  put(next as State[], rest, leaf, wrong);
}

/** The entries whose names begin with a section's index. */
function section(facts: ReadonlyMap<string, string>, index: string): Record<string, string> {
  const own = [...facts].filter(([name]) => name.startsWith(`${index}.`));
  return Object.fromEntries(own.map(([name, value]) => [name.slice(index.length + 1), value]));
}
