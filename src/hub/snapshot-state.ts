/** What a cached snapshot of a model lacks, as far as the cache can tell. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { cachedCommit, type HubRepo, mainRevision, repoFolder, snapshotFolder } from "./cache-layout";
import { rememberedFiles } from "./file-list";
import { isWanted } from "./repo-id";

export interface SnapshotState {
  folder: string;
  /** Files that the model has on the hub and that are not here: a list, an index or a link names them. */
  missing: string[];
  /** Files that most models have and that are not here, where nothing says whether this one has them. */
  absent: string[];
}

/** null where the cache has nothing of the commit. */
export function snapshotState(cache: string, name: string, commit: string): SnapshotState | null {
  const repo: HubRepo = { type: "model", name };
  const folder = snapshotFolder(cache, repo, commit);
  const names = namesIn(folder);
  if (names === null) return null;
  const has = (file: string) => isFile(join(folder, file));
  const listed = rememberedFiles(cache, repo, commit)?.map(({ path }) => path);
  if (listed) return { folder, missing: listed.filter((file) => isWanted(file) && !has(file)), absent: [] };
  // A link to nothing: its file was there once.
  const missing = new Set(names.filter((file) => isWanted(file) && !existsSync(join(folder, file))));
  if (!has("config.json")) missing.add("config.json");
  for (const file of missingWeights(folder, names.filter(has))) missing.add(file);
  const isKnownToLack = (file: string) => existsSync(join(repoFolder(cache, repo), ".no_exist", commit, file));
  const absent = usualFiles(folder, has).filter((file) => !missing.has(file) && !isKnownToLack(file));
  return { folder, missing: [...missing].sort(), absent };
}

/** The snapshot that a revision of a model stands for, where nothing of it is known to be missing. */
export function cachedSnapshot(cache: string, name: string, revision = mainRevision): string | null {
  const commit = cachedCommit(cache, { type: "model", name }, revision);
  const state = commit === null ? null : snapshotState(cache, name, commit);
  return state?.missing.length === 0 ? state.folder : null;
}

function namesIn(folder: string): string[] | null {
  try {
    return readdirSync(folder);
  } catch {
    return null;
  }
}

/** Follows links. */
function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

/** Weight files that the names of those which are there, or the index, speak of. */
function missingWeights(folder: string, names: readonly string[]): string[] {
  const files = names.filter((name) => /^model.*\.safetensors$/.test(name));
  const counted = files.flatMap((name) => {
    const [, before, count] = /^(.*-)\d+(?=-of-(\d+)\.safetensors$)/.exec(name) ?? [];
    if (before === undefined || Number(count) > 10_000) return [];
    return Array.from({ length: Number(count) }, (_, i) => `${before}${number(i + 1, count!)}-of-${count}.safetensors`);
  });
  const gaps = [...new Set(counted)].filter((name) => !files.includes(name));
  // Weights that are whole by their names stay, whatever an index of other files says: the loader decides.
  if (files.length > 0 && gaps.length === 0) return [];
  const named = indexedFiles(folder).filter((name) => !files.includes(name));
  if (named.length > 0) return named;
  return gaps.length > 0 ? gaps : ["model.safetensors"];
}

const number = (value: number, like: string) => String(value).padStart(like.length, "0");

function indexedFiles(folder: string): string[] {
  const path = join(folder, "model.safetensors.index.json");
  try {
    if (!isFile(path)) return [];
    const { weight_map: map } = JSON.parse(readFileSync(path, "utf8"));
    return [...new Set(Object.values(map as Record<string, string>))].filter((name) => typeof name === "string");
  } catch {
    return [];
  }
}

/** The files that a tokenizer is read from: one of these sets. */
const tokenizers = [
  ["tokenizer.json"],
  ["vocab.json", "merges.txt"],
  ...["hy.tiktoken", "cl100k_base.tiktoken", "qwen.tiktoken", "tiktoken.model", "tokenizer.jsonl"].map((file) => [
    file,
  ]),
];

/** Those that are not there of what most models have beside their weights. */
function usualFiles(folder: string, has: (file: string) => boolean): string[] {
  const absent: string[] = [];
  if (!tokenizers.some((files) => files.every(has))) absent.push("tokenizer.json");
  if (!has("tokenizer_config.json")) absent.push("tokenizer_config.json");
  if (!has("chat_template.jinja") && !has("chat_template.json") && !holdsTemplate(folder)) {
    absent.push("chat_template.jinja");
  }
  if (!has("generation_config.json")) absent.push("generation_config.json");
  return absent;
}

function holdsTemplate(folder: string): boolean {
  const path = join(folder, "tokenizer_config.json");
  try {
    return isFile(path) && Boolean(JSON.parse(readFileSync(path, "utf8")).chat_template);
  } catch {
    // The loader says what is wrong with it.
    return true;
  }
}
