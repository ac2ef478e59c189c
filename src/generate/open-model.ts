/** A model that is ready to answer: found, downloaded where need be, loaded, adapted. */
import { basename } from "node:path";
import type { AbsentFiles } from "../convert/checkpoint";
import { contextLength } from "../convert/config";
import { freeModel, type LoadedModel, loadModel } from "../convert/load";
import { absentWeights, stageFiles } from "../convert/stage-files";
import { demoFolder, demoName } from "../demo/folder";
import { ExitCode, UserError } from "../errors";
import { type ResolveOptions, resolveModel } from "../hub/resolve";
import * as mx from "../mlx";
import { isLaunched } from "../mlx/group-environment";
import type { LanguageModel } from "../models";
import { tightFit } from "../models/wired";
import { quantizeActivations } from "../nn";
import { applyAdapters, openAdapter } from "../tune/adapter-files";
import { WholeLayers } from "../tune/whole-layers";
import { DividedCaches } from "./ranks/divided-caches";
import { onAll } from "./ranks/on-all";
import { checkSameAdapter, checkSameModel } from "./same-model";

/** The model that mlx-lm takes where none is named. */
const referenceDefault = "mlx-community/Llama-3.2-3B-Instruct-4bit";

export interface FindOptions {
  /** Called while files are downloaded, in bytes. */
  onDownload?: (done: number, total: number) => void;
  /** Told of what a user should know and can go on with. */
  warn?: (message: string) => void;
  /** Says which weight files are wanted. */
  chooseWeights?: ResolveOptions["chooseWeights"];
  signal?: AbortSignal;
}

export interface FoundModel {
  path: string;
  /** The repo that it comes from, where it is one. */
  repo?: string;
}

/** The named model's folder, downloaded where need be. @throws UserError where there is no such model */
export async function findModel(name: string, options: FindOptions = {}): Promise<FoundModel> {
  const { onDownload, warn, chooseWeights, signal } = options;
  if (name === demoName) return { path: demoFolder() };
  const onProgress = ({ done, total }: { done: number; total: number }) => onDownload?.(done, total);
  return await resolveModel(name, { signal, chooseWeights, onWarning: warn, onProgress });
}

/** Says which weight files this process wants, where each of several has some layers; undefined where it wants all. */
export function weightsOfRank(pipeline = false): FindOptions["chooseWeights"] {
  const group = pipeline && isLaunched() ? mx.distributed.init({ strict: true }) : null;
  return group && group.size > 1 ? (folder) => stageFiles(folder, group) : undefined;
}

export interface OpenOptions extends FindOptions {
  /** Folder of an adapter that the model gets. */
  adapterPath?: string;
  /** Have quantized layers pack their inputs too. */
  quantizeActivations?: boolean;
  /** Load the model's own layers for drafting too. */
  draftHead?: boolean;
  /** Among several processes, give each some layers, not a part of each layer. */
  pipeline?: boolean;
  /** Among several processes, give each the whole model. */
  isWhole?: boolean;
  /** Caches come from files, or go there: among several processes they are divided and put together. */
  movesCaches?: boolean;
  /** Where it fails on one of several processes it fails on all, and none waits for another: they can go on. */
  onAllOrNone?: boolean;
  /** No model was named, and it is the demo model. */
  onDemo?: () => void;
}

export interface OpenedModel extends LoadedModel {
  folder: string;
  /** How many tokens fit, where the configuration says so. */
  contextLength: number | null;
  /** Of a model that is divided among processes, where caches are moved. */
  caches?: DividedCaches;
  /** Of a model that is divided among processes: its layers as they were before. */
  whole?: WholeLayers;
}

/**
 * Opens the named model; mlx-lm's default where none is named and it is in the cache, else the demo.
 * @throws UserError for whatever keeps the model from running
 */
export async function openModel(name: string | undefined, options: OpenOptions = {}): Promise<OpenedModel> {
  const { adapterPath, quantizeActivations: packsInputs = false, warn } = options;
  if (packsInputs && mx.defaultDevice() === "cpu") {
    throw new UserError("activations can be quantized on a GPU only: MLX has no such product for CPUs", {
      code: ExitCode.usage,
      hint: "Leave out --quantize-activations.",
    });
  }
  const group = isLaunched() ? mx.distributed.init({ strict: true }) : undefined;
  if (options.pipeline && !group) {
    throw new UserError("--pipeline spreads layers over ranks, and there is one process only", {
      code: ExitCode.usage,
      hint: "Start several: mlxlm launch -n 2 …",
    });
  }
  const spreads = options.pipeline && group && group.size > 1;
  const chooseWeights = weightsOfRank(options.pipeline);
  /** Work in which processes exchange nothing. */
  const apart = <T>(work: () => Promise<T>, undo?: (made: T) => void): Promise<T> =>
    group && options.onAllOrNone ? onAll(group, work, undo) : work();
  const { folder, elsewhere } = await apart(async () => {
    const { path, repo } =
      name === undefined
        ? { path: await defaultFolder(options), repo: undefined }
        : await findModel(name, { ...options, chooseWeights });
    if (group && adapterPath !== undefined) await openAdapter(adapterPath);
    const absent = spreads && repo !== undefined ? await absentFiles(path, repo, options) : undefined;
    return { folder: path, elsewhere: absent };
  });
  if (group) await checkSameModel(group, folder, elsewhere);
  if (group && adapterPath !== undefined) await checkSameAdapter(group, adapterPath);
  const divides = group && !options.isWhole;
  let caches: DividedCaches | undefined;
  let whole: WholeLayers | undefined;
  const adapt = async (model: LanguageModel) => {
    if (adapterPath !== undefined) await applyAdapters(model, adapterPath);
    if (divides && options.movesCaches && group.size > 1) caches = new DividedCaches(model, group);
    if (divides) whole = new WholeLayers(model);
  };
  // Of a model that is divided among ranks, layers are adapted while they are whole.
  const load = async () => {
    const loaded = await loadModel(folder, {
      draftHead: options.draftHead,
      ...(divides && { group, adapt, elsewhere, pipeline: options.pipeline }),
    });
    try {
      if (!divides) await adapt(loaded.model);
      if (packsInputs) quantizeActivations(loaded.model);
    } catch (error) {
      freeModel(loaded);
      throw error;
    }
    return loaded;
  };
  const loaded = await apart(load, freeModel);
  try {
    caches?.divided(loaded.model);
  } catch (error) {
    freeModel(loaded);
    throw error;
  }
  const tight = tightFit(loaded.model);
  if (tight !== null) warn?.(tight);
  return { ...loaded, folder, contextLength: contextLength(loaded.config), caches, whole };
}

/** Headers of the weight files that were not downloaded: other ranks have the layers in them. */
async function absentFiles(folder: string, repo: string, { signal }: OpenOptions): Promise<AbsentFiles | undefined> {
  const absent = await absentWeights(folder);
  if (absent.size === 0) return undefined;
  const { peekHeaders } = await import("../hub/peek");
  return await peekHeaders(repo, basename(folder), absent, { signal });
}

async function defaultFolder({ onDemo }: OpenOptions): Promise<string> {
  const cached = await resolveModel(referenceDefault, { offline: true }).catch(() => null);
  if (cached) return cached.path;
  onDemo?.();
  return demoFolder();
}
