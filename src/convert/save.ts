/**
 * Writing a checkpoint folder. All of it is made beside the target under another name, config.json and the index last,
 * and renamed when it is whole: at any moment there is either nothing or everything.
 */
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, statfs, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { ExitCode, UserError } from "../errors";
import { savedCard } from "../hub/model-card";
import { inputFile, inputTextSync } from "../input-file";
import { removeLeftovers, uniqueMark } from "../leftovers";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { architectureOf, type DraftHead, type LanguageModel } from "../models";
import { isBlockLayer } from "../nn";
import { systemError } from "../system-errors";
import type { ModelConfig } from "./config";
import { draftFile, draftWeights } from "./draft-layers";
import { parameterCount } from "./quantize-model";
import { asWritten, writePythonJson } from "./write-json";

/** A shard grows no larger, unless one tensor alone does. */
const shardBytes = 5 * 2 ** 30;

/** The allocator gives memory back after so many bytes. */
const cleanupBytes = 256 * 2 ** 20;

/** Files of a tokenizer, and others that belong to a model and are taken over as they are. */
const companions =
  /^(tokenizer.*\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|.*\.tiktoken|(tokenizer|tiktoken)\.model|tokenizer\.jsonl|rwkv_vocab_.*\.txt|.*\.jinja|chat_template\.json|generation_config\.json|.*\.py)$/;

export interface SaveOptions {
  /** Folder of the model that this one was made from: its tokenizer and generation settings come along. */
  source: string;
  /** The repo that it was downloaded from. */
  repo?: string;
  /** The model's own layers for drafting, which are freed too. */
  draftHead?: DraftHead;
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** @throws UserError where something is there already */
export async function checkTarget(target: string): Promise<void> {
  const exists = await readdir(dirname(resolve(target))).then(
    (names) => names.includes(basename(resolve(target))),
    () => false,
  );
  if (exists) {
    throw new UserError(`${target} exists already`, {
      code: ExitCode.usage,
      hint: "Delete it, or name another folder to save to.",
    });
  }
}

/**
 * Saves the model and frees it: each tensor is made, written and let go, so that a lazy model takes the memory of one
 * shard and a layer.
 * @throws UserError where the target exists, the disk is too small, or the signal ends the work
 */
export async function saveModel(
  target: string,
  model: LanguageModel,
  config: ModelConfig,
  { source, repo, draftHead, onProgress, signal }: SaveOptions,
): Promise<void> {
  refuseBlocks(model);
  const count = parameterCount(model);
  const weights = mx.keep(new Map(model.namedParameters()));
  model.dispose();
  const folder = resolve(target);
  const temporary = `${folder}.partial-${uniqueMark()}`;
  try {
    await checkTarget(target);
    await mkdir(dirname(folder), { recursive: true });
    await removeLeftovers(dirname(folder), (name) => name.includes(".partial-"));
    const total = bytesOf(weights.values());
    await checkSpace(dirname(folder), total + (draftHead ? bytesOf(draftWeights(draftHead).values()) : 0));
    await mkdir(temporary);
    const map = await saveWeights(temporary, weights, total, { onProgress, signal });
    if (draftHead) mx.saveSafetensors(join(temporary, draftFile), draftWeights(draftHead), { format: "mlx" });
    for (const name of (await readdir(source)).filter((name) => companions.test(name))) {
      if (await isFolder(join(source, name))) continue;
      if ((await inputFile(join(source, name))) === null) throw dangling(source, name);
      await copyContent(join(source, name), join(temporary, name));
    }
    if (repo !== undefined) {
      const { fetchCard } = await import("../hub/download");
      await fetchCard(repo, source, signal);
    }
    const card = inputTextSync(join(source, "README.md")) ?? "";
    await writeFile(join(temporary, "README.md"), savedCard(card, repo));
    const written = asWritten(await savedConfig(config), inputTextSync(join(source, "config.json")) ?? "{}");
    await writeFile(join(temporary, "config.json"), json(written));
    const metadata = { total_size: total, total_parameters: count };
    await writeFile(join(temporary, "model.safetensors.index.json"), json({ metadata, weight_map: sorted(map) }));
    for (const name of await readdir(temporary)) await flush(join(temporary, name));
    await checkTarget(target);
    await rename(temporary, folder);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
    throw explained(target, error);
  } finally {
    for (const tensor of weights.values()) mx.release(tensor);
    draftHead?.dispose();
  }
}

/** Safetensors have no form for weights in a GGUF file's blocks. */
function refuseBlocks(model: LanguageModel): void {
  if (!model.namedModules().some(([, module]) => isBlockLayer(module))) return;
  model.dispose();
  throw new UserError("weights in the blocks of a GGUF file cannot be saved as safetensors", {
    hint: "Convert the file itself: mlxlm convert --hf-path FILE.gguf --mlx-path FOLDER",
  });
}

const bytesOf = (tensors: Iterable<Tensor>) => [...tensors].reduce((sum, { nbytes }) => sum + nbytes, 0);

const isFolder = async (path: string) => (await stat(path).catch(() => null))?.isDirectory() ?? false;

const dangling = (folder: string, name: string) =>
  new UserError(`the file ${name} of ${folder} is a link that leads to nothing`, {
    code: ExitCode.notFound,
    hint: "Put the file there, or delete the link.",
  });

/** A copy that has the mode of any new file: those of a cache are its owner's alone, or cannot be written. */
async function copyContent(from: string, to: string): Promise<void> {
  await pipeline(createReadStream(from), createWriteStream(to, { flags: "wx" }));
}

/** Has the disk hold what was written, so that a name never outlives its content. */
async function flush(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function explained(target: string, error: unknown): unknown {
  // MLX tells no reason: of a file that could be opened, it is a full disk.
  const isFull = error instanceof mx.MlxError && /write/i.test(error.message);
  const known = systemError(error, `${target} cannot be written`);
  if (!isFull) return known ?? error;
  return new UserError(`${target} cannot be written: the disk is full`, {
    code: ExitCode.resources,
    hint: "Make room there, or name a folder on another disk.",
    cause: error,
  });
}

/** Writes the shards, empties `weights` and returns the file of each. */
async function saveWeights(
  folder: string,
  weights: Map<string, Tensor>,
  total: number,
  { onProgress, signal }: Pick<SaveOptions, "onProgress" | "signal">,
): Promise<Record<string, string>> {
  const shards = shardsOf(weights);
  const map: Record<string, string> = {};
  let done = 0;
  let unclean = 0;
  for (const [i, names] of shards.entries()) {
    const file = shards.length === 1 ? "model.safetensors" : shardName(i + 1, shards.length);
    for (const name of names) {
      const tensor = weights.get(name)!;
      mx.eval(tensor);
      map[name] = file;
      done += tensor.nbytes;
      unclean += tensor.nbytes;
      if (unclean >= cleanupBytes) {
        mx.clearCache();
        unclean = 0;
      }
      onProgress?.(done, total);
      await breathe();
      if (signal?.aborted) throw new UserError("stopped: nothing was saved", { code: ExitCode.interrupted });
    }
    const shard = new Map(names.map((name) => [name, weights.get(name)!]));
    mx.saveSafetensors(join(folder, file), shard, { format: "mlx" });
    for (const [name, tensor] of shard) {
      mx.release(tensor);
      weights.delete(name);
    }
    mx.clearCache();
  }
  return map;
}

const shardName = (number: number, count: number) =>
  `model-${String(number).padStart(5, "0")}-of-${String(count).padStart(5, "0")}.safetensors`;

/** Names by shard, in the model's order. */
function shardsOf(weights: ReadonlyMap<string, Tensor>): string[][] {
  const shards: string[][] = [];
  let bytes = 0;
  for (const [name, { nbytes }] of weights) {
    if (shards.length === 0 || bytes + nbytes > shardBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(name);
    bytes += nbytes;
  }
  return shards;
}

async function checkSpace(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize >= bytes) return;
  const sized = (n: number) => (n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(1)} GB`);
  throw new UserError(`the model takes ${sized(bytes)}, and ${folder} has ${sized(bavail * bsize)} left`, {
    code: ExitCode.resources,
    hint: "Make room, or name a folder on another disk.",
  });
}

function sorted<T>(record: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
}

const json = (value: object) => writePythonJson(value, 4);

/** Without what is said of a part for images that was left out. */
async function savedConfig({ _name_or_path, vision_config, ...config }: ModelConfig): Promise<Record<string, unknown>> {
  const { seesImages = false } = await architectureOf(config);
  const rest: ModelConfig = seesImages && vision_config ? { ...config, vision_config } : config;
  return sorted(rest.quantization === undefined ? rest : { ...rest, quantization_config: rest.quantization });
}
