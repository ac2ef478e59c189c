/** Kept prompts on disk, so that a server that starts again goes on from them. */
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { dispose } from "../../generate/prefix-store";
import { loadPromptCache, savePromptCache } from "../../generate/prompt-cache-file";
import { checkCacheOf } from "../../generate/prompt-cache-fit";
import type { CacheMover } from "../../generate/ranks/lead";
import * as mx from "../../mlx";
import type { Cache, LanguageModel } from "../../models";
import type { KeptPrefixes } from "./radix-prefixes";

/** What the files of one model are found by: its weights, its tokenizer, its adapter. */
export interface Origin {
  /** The model's folder or file, and its adapter's folder. */
  paths: readonly string[];
  config: object;
}

const ending = ".safetensors";

export class PrefixFiles {
  /**
   * @param folder has one folder for each model
   * @param version files of another one are not read
   */
  constructor(
    private readonly folder: string,
    private readonly version: string,
    readonly onProblem: (problem: string) => void,
  ) {}

  /** Reads what was kept for a model, the least recently used first. What cannot be read is told, and left out. */
  async restore(
    model: LanguageModel,
    origin: Origin,
    prefixes: KeptPrefixes,
    mover: CacheMover | null = null,
  ): Promise<number> {
    const folder = await this.#folderOf(origin);
    let count = 0;
    for (const name of await byAge(folder)) {
      const path = join(folder, name);
      try {
        const saved = await loadPromptCache(path);
        let { cache } = saved;
        try {
          const tokens = tokensOf(saved, model.vocabSize);
          if (mover) {
            cache = await mover.own(saved.cache);
            dispose(saved.cache);
          }
          checkCacheOf(model, { ...saved, cache }, path);
          mx.eval(cache.map((layer) => layer.state));
          prefixes.put(cache, tokens);
          count++;
        } catch (error) {
          dispose(cache);
          throw error;
        }
      } catch (error) {
        this.onProblem(`a kept prompt is left out: ${(error as Error).message}`);
      }
    }
    return count;
  }

  /** Writes what is kept for a model, each file whole or not at all, and removes what is no longer kept. */
  async save(origin: Origin, prefixes: KeptPrefixes, mover: CacheMover | null = null): Promise<number> {
    const folder = await this.#folderOf(origin);
    await mkdir(folder, { recursive: true });
    const before = new Set(await byAge(folder));
    const names = new Set<string>();
    for (const { tokens, layers } of prefixes.entries) {
      const name = `${hash(JSON.stringify(tokens))}${ending}`;
      names.add(name);
      if (before.has(name)) continue;
      const whole = (await mover?.whole(layers)) ?? layers;
      try {
        await savePromptCache(join(folder, name), whole, { tokens: JSON.stringify(tokens) });
      } finally {
        if (whole !== layers) dispose(whole);
      }
    }
    for (const name of before) if (!names.has(name)) await rm(join(folder, name), { force: true });
    return names.size;
  }

  async #folderOf({ paths, config }: Origin): Promise<string> {
    const files = await Promise.all(paths.map(facts));
    return join(this.folder, hash(JSON.stringify([this.version, config, files])));
  }
}

const hash = (text: string) => new Bun.CryptoHasher("sha256").update(text).digest("hex").slice(0, 32);

/** Sizes and times of a folder's files: other weights under the same name are another model. */
async function facts(path: string): Promise<unknown> {
  const found = await stat(path);
  if (!found.isDirectory()) return [found.size, found.mtimeMs];
  const names = (await readdir(path)).filter((name) => /\.(safetensors|gguf|json|model)$/.test(name)).sort();
  return Promise.all(
    names.map(async (name) => {
      const { size, mtimeMs } = await stat(join(path, name));
      return [name, size, mtimeMs];
    }),
  );
}

/** Names of the files in a folder, the oldest first; none where there is no folder. */
async function byAge(folder: string): Promise<string[]> {
  const names = (await readdir(folder).catch(() => [])).filter((name) => name.endsWith(ending));
  const aged = await Promise.all(names.map(async (name) => ({ name, age: (await stat(join(folder, name))).mtimeMs })));
  return aged.sort((a, b) => a.age - b.age).map(({ name }) => name);
}

/** The tokens that a file's caches stand for. @throws Error where it does not say, or says otherwise than they do */
function tokensOf(
  { cache, metadata }: { cache: Cache[]; metadata: Record<string, string> },
  vocabSize: number,
): number[] {
  const tokens: unknown = JSON.parse(metadata.tokens ?? "null");
  const isToken = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabSize;
  if (!Array.isArray(tokens) || !tokens.every(isToken)) throw new Error("it does not say which tokens it stands for");
  for (const layer of cache) {
    const { offset } = layer as { offset?: unknown };
    if (typeof offset === "number" && offset !== tokens.length)
      throw new Error("it stands for other tokens than it says");
  }
  return tokens as number[];
}
