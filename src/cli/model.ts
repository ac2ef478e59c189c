/** The model that a command runs: found, downloaded with a bar, loaded. */
import { contextLength } from "../convert/config";
import { type LoadedModel, loadModel } from "../convert/load";
import { demoFolder, demoName } from "../demo/folder";
import { ExitCode, UserError } from "../errors";
import { resolveModel } from "../hub/resolve";
import * as mx from "../mlx";
import { quantizeActivations } from "../nn";
import { applyAdapters } from "../tune/adapter-files";
import type { Output } from "./output";

/** The model that mlx-lm takes where none is named. */
const referenceDefault = "mlx-community/Llama-3.2-3B-Instruct-4bit";

/** Folder of the named model; of mlx-lm's default where none is named and it is in the cache, else of the demo. */
async function modelFolder(name: string | undefined, out: Output, signal: AbortSignal): Promise<string> {
  if (name !== undefined) return (await findModel(name, out, signal)).path;
  const cached = await resolveModel(referenceDefault, { offline: true }).catch(() => null);
  if (cached) return cached.path;
  out.info(`No model was named: this is the small demo model inside mlxlm. Another one: --model FOLDER or REPO`);
  return demoFolder();
}

export interface FoundModel {
  path: string;
  /** The repo that it comes from, where it is one. */
  repo?: string;
}

/** The named model's folder, downloaded with a bar where need be. @throws UserError where there is no such model */
export async function findModel(name: string, out: Output, signal: AbortSignal): Promise<FoundModel> {
  if (name === demoName) return { path: demoFolder() };
  const bar = out.progress(`Downloading ${name}`, { unit: "bytes" });
  try {
    const onWarning = (warning: string) => out.warn(warning);
    return await resolveModel(name, { signal, onWarning, onProgress: ({ done, total }) => bar.at(done, total) });
  } finally {
    bar.end();
  }
}

export interface OpenedModel extends LoadedModel {
  folder: string;
  /** How many tokens fit, where the configuration says so. */
  contextLength: number | null;
}

export interface OpenOptions {
  /** Folder of an adapter that the model gets. */
  adapterPath?: string;
  /** Have quantized layers pack their inputs too. */
  quantizeActivations?: boolean;
}

/** @throws UserError for whatever keeps the model from running */
export async function openModel(
  name: string | undefined,
  out: Output,
  signal: AbortSignal,
  { adapterPath, quantizeActivations: packsInputs = false }: OpenOptions = {},
): Promise<OpenedModel> {
  if (packsInputs && mx.defaultDevice() === "cpu") {
    throw new UserError("activations can be quantized on a GPU only: MLX has no such product for CPUs", {
      code: ExitCode.usage,
      hint: "Leave out --quantize-activations.",
    });
  }
  const folder = await modelFolder(name, out, signal);
  const loaded = await loadModel(folder);
  try {
    if (adapterPath !== undefined) await applyAdapters(loaded.model, adapterPath);
    if (packsInputs) quantizeActivations(loaded.model);
  } catch (error) {
    loaded.model.dispose();
    throw error;
  }
  return { ...loaded, folder, contextLength: contextLength(loaded.config) };
}
