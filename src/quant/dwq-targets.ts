/**
 * What the original model predicts for each batch, in files: its highest logits and their tokens. With them the original
 * need not be in memory while the quantized model learns from it.
 */
import { existsSync } from "node:fs";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "../atomic-file";
import { ExitCode, UserError } from "../errors";
import { readJson } from "../json-file";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { isInexact } from "../mlx";
import { readSafetensorsHeader } from "../mlx/safetensors-header";
import type { LanguageModel } from "../models";
import type { TokenBatch } from "../tune/token-batch";
import { checkStopped } from "./stopped";

export type TargetSplit = "train" | "valid";

/** Logits of the original for a batch (B, T). */
export interface Target {
  /** (B, T, K), or all (B, T, V) */
  logits: Tensor;
  /** (B, T, K): which tokens they are of; null for all. */
  indices: Tensor | null;
}

/** So many logits of each position are kept. */
const kept = 1024;

const factsName = "targets.json";

const targetPath = (folder: string, split: TargetSplit, index: number) =>
  join(folder, split, `${String(index).padStart(10, "0")}.safetensors`);

export interface BatchCounts {
  train: number;
  valid: number;
}

/**
 * Whether the folder has the targets of all batches already.
 * @param facts what they depend on
 * @throws UserError where they are of other data, or there are some of which nobody knows what
 */
export async function hasTargets(
  folder: string,
  counts: BatchCounts,
  facts: Readonly<Record<string, unknown>>,
): Promise<boolean> {
  const isKnown = existsSync(join(folder, factsName));
  if (isKnown) compareFacts(folder, await readJson(folder, factsName), facts);
  const found = { train: await countFiles(folder, "train"), valid: await countFiles(folder, "valid") };
  if (found.train === counts.train && found.valid === counts.valid) return true;
  if (isKnown || found.train + found.valid === 0) return false;
  // Without facts they are another program's: what is missing cannot be told.
  throw new UserError(
    `${folder} has targets of ${found.train} and ${found.valid} batches, but the data gives ${counts.train} and ${counts.valid}`,
    {
      code: ExitCode.usage,
      hint: "Name another folder: --target-dir FOLDER. Or give the data that they were made from.",
    },
  );
}

async function countFiles(folder: string, split: TargetSplit): Promise<number> {
  const names = await readdir(join(folder, split)).catch(() => []);
  return names.filter((name) => /^\d{10}\.safetensors$/.test(name)).length;
}

function compareFacts(
  folder: string,
  before: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, unknown>>,
) {
  const name = Object.keys(now).find((name) => before[name] !== now[name]);
  if (name === undefined) return;
  const [then, today] = [before[name], now[name]].map((value) => JSON.stringify(value) ?? "nothing");
  throw new UserError(`the targets in ${folder} were made with another ${name}: ${then}, not ${today}`, {
    code: ExitCode.usage,
    hint: "Name another folder: --target-dir FOLDER. Or delete that one.",
  });
}

export interface TargetOptions {
  facts: Readonly<Record<string, unknown>>;
  batches: Record<TargetSplit, () => Iterable<TokenBatch>>;
  counts: BatchCounts;
  onBatch?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** Computes the targets that are not there yet. @throws UserError where the signal ends it: those made are kept */
export async function computeTargets(model: LanguageModel, folder: string, options: TargetOptions): Promise<void> {
  const { facts, batches, counts, onBatch, signal } = options;
  await mkdir(folder, { recursive: true });
  await replaceFile(
    join(folder, factsName),
    async (path) => void (await Bun.write(path, JSON.stringify(facts, null, 2))),
  );
  let done = 0;
  for (const split of ["valid", "train"] as const) {
    await mkdir(join(folder, split), { recursive: true });
    let index = 0;
    for (const batch of batches[split]()) {
      checkStopped(signal);
      const path = targetPath(folder, split, index++);
      if (!existsSync(path)) await writeTarget(path, model, batch);
      onBatch?.(++done, counts.train + counts.valid);
      await breathe();
    }
  }
}

async function writeTarget(path: string, model: LanguageModel, batch: TokenBatch): Promise<void> {
  const target = mx.scope(() => {
    const logits = model.forward(inputsOf(batch));
    const count = Math.min(kept, logits.dim(-1));
    const indices = mx.argpartition(logits, -count).at(mx.ellipsis, mx.slice(-count, null));
    return { logits: logits.takeAlongAxis(indices, -1), indices };
  });
  mx.eval(target);
  try {
    const tensors = new Map(Object.entries(target));
    await replaceFile(path, (temporary) => mx.saveSafetensors(temporary, tensors));
  } finally {
    target.logits.dispose();
    target.indices.dispose();
    mx.clearCache();
  }
}

/** The tokens that come before others: (B, T − 1), int32 */
export function inputsOf({ tokens, shape }: TokenBatch): Tensor {
  return mx.array(tokens, "int32", [...shape]).at(":", mx.slice(0, -1));
}

/**
 * The targets of a batch, evaluated; the caller disposes of them.
 * @throws UserError where the file is missing, unsound, or does not fit the batch and the model
 */
export async function readTarget(
  folder: string,
  split: TargetSplit,
  index: number,
  { shape: [rows, length] }: TokenBatch,
  vocabSize: number,
): Promise<Required<{ logits: Tensor; indices: Tensor }>> {
  const path = targetPath(folder, split, index);
  const wrong = (problem: string) =>
    new UserError(`${path} ${problem}`, { hint: "Delete the folder: its targets are then computed anew." });
  if (!existsSync(path)) throw wrong("is missing");
  await readSafetensorsHeader(path);
  const { arrays } = mx.loadSafetensors(path);
  try {
    const [logits, indices] = [arrays.get("logits"), arrays.get("indices")];
    if (!logits || !indices || arrays.size !== 2) throw wrong("holds no logits with their indices");
    const fits = ({ shape }: Tensor) =>
      shape.length === 3 && shape[0] === rows && shape[1] === length - 1 && shape[2]! > 0 && shape[2]! <= vocabSize;
    if (!fits(logits) || logits.shape.join() !== indices.shape.join()) {
      throw wrong(`is of another batch: its logits are (${logits.shape.join(", ")})`);
    }
    if (!isInexact(logits.dtype) || indices.dtype !== "uint32") throw wrong("holds numbers of a wrong kind");
    mx.eval(logits, indices);
    // MLX checks no bounds: a token that is not there would read foreign memory.
    const most = mx.scope(() => indices.max().item());
    if (most >= vocabSize) throw wrong(`names token ${most}, but the model has ${vocabSize} tokens`);
    return { logits, indices };
  } catch (error) {
    for (const tensor of arrays.values()) tensor.dispose();
    throw error;
  }
}
