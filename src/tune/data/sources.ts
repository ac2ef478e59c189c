/** Where the rows come from that a model is trained on: a folder, a file, or datasets of the hub. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { openDataset } from "../../data/dataset";
import { openRows, rowFormats } from "../../data/row-files";
import type { Rows } from "../../data/rows";
import { slicedSplit } from "../../data/split-slices";
import type { DatasetOptions, Splits } from "../../data/splits";
import { ExitCode, UserError } from "../../errors";
import type { HubDataset, Settings } from "../settings";
import type { Features } from "./encoder";

export const splitNames = ["train", "valid", "test"] as const;
export type SplitName = (typeof splitNames)[number];

/** Rows whose fields have their names in common. */
export interface Source {
  rows: Rows;
  features: Features;
}

export type DataSettings = Pick<Settings, "data" | "train" | "test" | "hf_dataset" | FeatureSetting>;
type FeatureSetting = "prompt_feature" | "completion_feature" | "chat_feature" | "text_feature";

export interface SourceOptions {
  /** Called with mlx-lm's words as a dataset is looked for on the hub. */
  onStage?: (line: string) => void;
  onDownload?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

type Sources = Record<SplitName, Source[]>;

/** Names that a split may have. */
const aliases: Record<SplitName, readonly string[]> = {
  train: ["train"],
  valid: ["valid", "validation"],
  test: ["test"],
};

/**
 * The rows of each set that the settings need.
 * @throws UserError where there is no such dataset, or it cannot be read
 */
export async function openSources(settings: DataSettings, options: SourceOptions = {}): Promise<Sources> {
  const sources = settings.hf_dataset
    ? await hubSources([settings.hf_dataset].flat(), settings, options)
    : await namedSources(settings, options);
  const isNeeded = { train: settings.train, valid: settings.train, test: settings.test };
  for (const name of splitNames) if (!isNeeded[name]) sources[name] = [];
  return sources;
}

const featuresOf = (given: Pick<Settings, FeatureSetting>): Features => ({
  prompt: given.prompt_feature ?? "prompt",
  completion: given.completion_feature ?? "completion",
  chat: given.chat_feature ?? "messages",
  text: given.text_feature ?? "text",
});

/** The folder, file or repo that `data` names. */
async function namedSources(settings: DataSettings, options: SourceOptions): Promise<Sources> {
  const { data } = settings;
  const facts = await stat(data).catch(() => null);
  const named = facts?.isDirectory() ? await filesBySplit(data) : new Map<string, Rows>();
  if (!facts) options.onStage?.(`Loading Hugging Face dataset ${data}.`);
  const splits = named.size > 0 ? named : await openDataset(data, datasetOptions(options));
  const features = featuresOf(settings);
  const source = (name: SplitName) => {
    const rows = aliases[name].map((alias) => splits.get(alias)).find((found) => found !== undefined);
    return rows ? [{ rows, features }] : [];
  };
  return { train: source("train"), valid: source("valid"), test: source("test") };
}

const datasetOptions = ({ onDownload: onProgress, onStage: onNotice, signal }: SourceOptions): DatasetOptions => ({
  onProgress,
  onNotice,
  signal,
});

/** Files that have just a split's name: train.jsonl, valid.parquet. */
async function filesBySplit(folder: string): Promise<Splits> {
  const splits = new Map<string, Rows>();
  for (const name of Object.values(aliases).flat()) {
    for (const format of rowFormats) {
      const path = join(folder, `${name}.${format}`);
      if (splits.has(name) || !(await stat(path).catch(() => null))) continue;
      // What a row lacks tells what kind it is of.
      splits.set(name, await openRows([path], { sparse: true }));
    }
  }
  return splits;
}

/** The parts of datasets that `hf_dataset` names, one behind the other. */
async function hubSources(
  datasets: readonly HubDataset[],
  { train, test }: DataSettings,
  options: SourceOptions,
): Promise<Sources> {
  const sources: Sources = { train: [], valid: [], test: [] };
  for (const dataset of datasets) {
    const { path, config } = dataset;
    options.onStage?.(`Loading Hugging Face dataset ${path}.`);
    const splits = await openDataset(path, {
      ...datasetOptions(options),
      name: config?.name ?? undefined,
      dataDir: config?.data_dir ?? undefined,
      dataFiles: config?.data_files ?? undefined,
      revision: config?.revision ?? undefined,
    });
    const features = featuresOf(dataset);
    const add = (name: SplitName, words: string) =>
      sources[name].push({ rows: slicedSplit(splits, words, path), features });
    if (train) {
      add("train", dataset.train_split ?? "train[:80%]");
      add("valid", dataset.valid_split ?? "train[-10%:]");
    }
    if (!test) continue;
    if (dataset.test_split) add("test", dataset.test_split);
    else {
      throw new UserError(`hf_dataset does not say which part of ${path} is for the test`, {
        code: ExitCode.usage,
        hint: "Name it in the settings, for example test_split: test",
      });
    }
  }
  return sources;
}
