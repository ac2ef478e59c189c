/** From a model with adapters to a plain one. */
import { join } from "node:path";
import { exportGguf } from "../convert/gguf/export";
import { exportPlan } from "../convert/gguf/export-plan";
import type { ExportType } from "../convert/gguf/export-types";
import { openWeights } from "../convert/load";
import { parameterCount } from "../convert/quantize-model";
import { saveModel } from "../convert/save";
import { readConfig } from "../convert/source";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { dequantize } from "../nn";
import { applyAdapters } from "./adapter-files";
import { isAdapter } from "./low-rank";

/**
 * Puts plain layers in place of the adapters, packed as the bases are unless `dequantize`. Lazy. Returns how many there
 * were.
 */
export function fuseAdapters(model: LanguageModel, options: { dequantize?: boolean } = {}): number {
  let count = 0;
  for (const [path, module] of model.namedModules()) {
    if (!isAdapter(module)) continue;
    model.replace(
      path,
      mx.scope(() => module.fuse(options)),
    );
    module.dispose();
    count += 1;
  }
  return count;
}

export interface FuseOptions {
  /** Save in floating point what was packed. */
  dequantize?: boolean;
  /** Write a GGUF file too: its path within the folder, and what its matrices become. */
  gguf?: { path: string; type: ExportType };
  /** Called as each part of the work begins, with mlx-lm's words for it. */
  onStage?: (line: string) => void;
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface Fused {
  parameters: number;
  /** How many adapters there were. */
  adapters: number;
}

/**
 * Saves to `target` the model in `path` with the adapters of a folder made part of its weights. Tensors are made and
 * written one after the other.
 * @throws UserError where the model or the adapter cannot be loaded, do not belong together, or the target exists
 */
export async function fuseModel(
  { path, repo }: { path: string; repo?: string },
  adapterPath: string,
  target: string,
  { onStage, onProgress, signal, gguf, ...options }: FuseOptions = {},
): Promise<Fused> {
  onStage?.("Loading pretrained model");
  const before = await readConfig(path);
  // Better now than when all else is done.
  if (gguf) await exportPlan(before, path);
  const opened = await openWeights(path, before);
  const { model } = opened;
  let { config } = opened;
  let fused: Fused;
  try {
    await applyAdapters(model, adapterPath);
    const adapters = fuseAdapters(model, options);
    if (options.dequantize) {
      onStage?.("Dequantizing model");
      dequantize(model);
      const { quantization, quantization_config, ...rest } = config;
      config = rest;
    }
    fused = { parameters: parameterCount(model), adapters };
  } catch (error) {
    model.dispose();
    throw error;
  }
  await saveModel(target, model, config, { source: path, repo, onProgress, signal });
  if (gguf) {
    onStage?.("Converting to GGUF format");
    const file = join(target, gguf.path);
    await exportGguf(target, file, { type: gguf.type, onProgress, signal });
    onStage?.(`Converted GGUF model saved as: ${file}`);
  }
  return fused;
}
