/** The models that a server finds by itself: those that are whole in the shared cache, and the demo. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { cachedCheckpoints } from "../convert/cached-checkpoints";
import { freeModel } from "../convert/load";
import { openSource } from "../convert/source";
import { absentWeights } from "../convert/stage-files";
import { demoName } from "../demo/folder";
import { findModel, type OpenedModel, openModel, weightsOfRank } from "../generate/open-model";
import { onAll } from "../generate/ranks/on-all";
import { everyone, tellOpening } from "../generate/ranks/orders";
import { isLaunched, isLead } from "../mlx/group-environment";
import { loadTokenizer } from "../text/tokenizer";
import type { ModelSource, Open } from "./models/models";

/** Milliseconds for which a look at the cache counts. */
const fresh = 5000;

let looked: { at: number; models: Promise<ModelSource[]> } | null = null;

/** The models that can be had without a download. */
export function cachedModels(): Promise<ModelSource[]> {
  if (!looked || performance.now() - looked.at > fresh) looked = { at: performance.now(), models: look() };
  return looked.models;
}

async function look(): Promise<ModelSource[]> {
  const repos = await cachedCheckpoints(() => {}).catch(() => []);
  const whole = repos.filter(({ snapshot, model_type }) => snapshot !== null && model_type !== null);
  return [demoName, ...whole.map(({ id }) => id)].map((name) => ({ name, open: name }));
}

/** A model of that name among them: what a client says is compared with names, and never becomes a path. */
export async function cachedModel(name: string): Promise<ModelSource | null> {
  return (await cachedModels()).find((one) => one.name === name) ?? null;
}

export interface OpenerOptions {
  /** Takes the place of the checkpoint's own chat template. */
  chatTemplate?: string;
  /** Load models' own draft layers too. */
  draftHead?: boolean;
  /** Among several processes, give each some layers. */
  pipeline?: boolean;
  /** Caches come from files, or go there. */
  movesCaches?: boolean;
  onDownload?: (model: string, done: number, total: number) => void;
  warn?: (message: string) => void;
}

/**
 * Opens what the operator named, downloaded where need be. Of several ranks the first has the others open it too, in turn: it
 * fails on all of them, or on none.
 */
export function opener({ chatTemplate, onDownload, ...options }: OpenerOptions): Open {
  return async ({ name, open, adapterPath }) => {
    const isNow = isLaunched() && isLead() ? tellOpening({ name, open, adapterPath }) : null;
    const opened = await openModel(open, {
      ...{ ...options, adapterPath, onAllOrNone: true },
      onDownload: (done, total) => onDownload?.(open ?? "", done, total),
    });
    try {
      opened.caches?.check();
      isNow?.(opened.model);
      if (chatTemplate === undefined) return opened;
      const change = () => withTemplate(opened, chatTemplate);
      return await (isLaunched() ? onAll(everyone(), change) : change());
    } catch (error) {
      freeModel(opened);
      throw error;
    }
  };
}

async function withTemplate(opened: OpenedModel, chatTemplate: string): Promise<OpenedModel> {
  const source = await openSource(opened.folder);
  const { eosTokenIds } = opened.tokenizer;
  const tokenizer = await source.companions((folder) => loadTokenizer(folder, { chatTemplate, eosTokenIds }));
  return { ...opened, tokenizer };
}

/** Bytes of a model's weight files, downloaded where need be; of several ranks each has its part, those of its layers in a pipeline. */
export async function weightBytes({ open }: ModelSource, { pipeline }: { pipeline?: boolean } = {}): Promise<number> {
  if (open === undefined) return 0;
  const { path } = await findModel(open, { chooseWeights: weightsOfRank(pipeline) });
  const bytes = await fileBytes(path);
  const isPart = pipeline && (await absentWeights(path)).size > 0;
  return isPart || !isLaunched() ? bytes : bytes / everyone().size;
}

async function fileBytes(path: string): Promise<number> {
  const facts = await stat(path);
  if (!facts.isDirectory()) return facts.size;
  const names = (await readdir(path)).filter((name) => /\.(safetensors|gguf)$/.test(name));
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(path, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}
