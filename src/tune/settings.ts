/** The settings of a fine-tuning: command line, then YAML file, then defaults. Names are mlx-lm's. */
import { parseDocument } from "yaml";
import { z } from "zod";
import { ExitCode, UserError } from "../errors";
import { inputText } from "../input-file";
import { nearest } from "../nearest";
import { type LoraParameters, parseLoraParameters, problemOf } from "./adapter-files";
import { fineTuneTypes, optimizerNames } from "./names";

const text = z.string();
const positive = z.int().positive();
/** How many batches; -1: all. */
const batchCount = z.int().min(-1);

const Schedule = z.strictObject({
  name: text,
  arguments: z.array(z.number()).min(1),
  warmup: z.int().nonnegative().default(0),
  warmup_init: z.number().default(0),
});

export type ScheduleSettings = z.infer<typeof Schedule>;

/** Names of the data's fields. */
const features = {
  prompt_feature: text.nullish(),
  completion_feature: text.nullish(),
  chat_feature: text.nullish(),
  text_feature: text.nullish(),
};

const HubDataset = z.looseObject({
  path: text,
  train_split: text.nullish(),
  valid_split: text.nullish(),
  test_split: text.nullish(),
  /** What `datasets.load_dataset` is given. */
  config: z
    .strictObject({
      name: text.nullish(),
      data_dir: text.nullish(),
      data_files: z.unknown().optional(),
      revision: text.nullish(),
      trust_remote_code: z.boolean().nullish(),
    })
    .nullish(),
  ...features,
});

export type HubDataset = z.infer<typeof HubDataset>;

/** YAML takes every key; those with no flag are marked. */
export const Settings = z.looseObject({
  model: text,
  train: z.boolean(),
  test: z.boolean(),
  data: text,
  fine_tune_type: z.enum(fineTuneTypes),
  /** In any case, as mlx-lm takes it from a file. */
  optimizer: z.preprocess((name) => (typeof name === "string" ? name.toLowerCase() : name), z.enum(optimizerNames)),
  /** No flag: arguments of each optimizer, by its name. */
  optimizer_config: z.record(z.string(), z.record(z.string(), z.unknown()).nullable()),
  mask_prompt: z.boolean(),
  num_layers: z.int(),
  batch_size: positive,
  iters: z.int().nonnegative(),
  val_batches: batchCount,
  test_batches: batchCount,
  learning_rate: z.number(),
  steps_per_report: positive,
  steps_per_eval: positive,
  save_every: positive,
  grad_accumulation_steps: positive,
  grad_checkpoint: z.boolean(),
  resume_adapter_file: text.nullable(),
  adapter_path: text,
  max_seq_length: z.int().min(2),
  clear_cache_threshold: z.union([z.number().nonnegative(), text.transform(sizeOf)]),
  report_to: text.nullable(),
  project_name: text.nullable(),
  seed: z.int().nonnegative(),
  trust_remote_code: z.boolean(),
  config: text.nullable(),
  /** No flag. Checked where an adapter is made. */
  lora_parameters: z.unknown(),
  /** No flag. */
  lr_schedule: Schedule.nullable(),
  /** No flag: one dataset of the hub, or several. */
  hf_dataset: z.union([HubDataset, z.array(HubDataset)]).nullish(),
  /** No flag: full fine-tuning takes embeddings, the last norm and the head too, which mlx-lm leaves as they are. */
  train_embeddings: z.boolean().nullish(),
  /** Several samples in each row of a training batch, which mlx-lm pads instead. */
  packing: z.boolean().nullish(),
  /** No flag. */
  ...features,
});

export type Settings = z.infer<typeof Settings> & { lora_parameters: LoraParameters | null };

const defaults = {
  model: "Qwen/Qwen3-0.6b",
  train: false,
  fine_tune_type: "lora",
  optimizer: "adam",
  optimizer_config: { adam: {}, adamw: {}, muon: {}, sgd: {}, adafactor: {} },
  data: "mlx-community/WikiSQL",
  seed: 0,
  num_layers: 16,
  batch_size: 4,
  iters: 1000,
  val_batches: 25,
  learning_rate: 1e-5,
  steps_per_report: 10,
  steps_per_eval: 200,
  resume_adapter_file: null,
  adapter_path: "adapters",
  save_every: 100,
  test: false,
  test_batches: 500,
  max_seq_length: 2048,
  config: null,
  grad_checkpoint: false,
  grad_accumulation_steps: 1,
  clear_cache_threshold: 0,
  lr_schedule: null,
  lora_parameters: { rank: 8, dropout: 0, scale: 20 },
  mask_prompt: false,
  report_to: null,
  project_name: null,
  trust_remote_code: false,
};

const units: Readonly<Record<string, number>> = { "": 1, M: 1e6, MB: 1e6, G: 1e9, GB: 1e9 };

/** Bytes of "10", "2M" or "1.5GB". @throws UserError for other texts */
export function sizeOf(written: string): number {
  const [, digits, unit] = /^([\d.]+)\s*([a-z]*)$/i.exec(written.trim()) ?? [];
  const factor = units[unit?.toUpperCase() ?? "?"];
  const bytes = Math.trunc(Number(digits) * (factor ?? Number.NaN));
  if (Number.isFinite(bytes)) return bytes;
  throw new UserError(`"${written}" is no size`, { code: ExitCode.usage, hint: "For example 10, 500M or 1.5GB" });
}

/** Larger than any real file of settings. */
const largestFile = 2 ** 20;

/**
 * The settings in a YAML file, in the form of YAML that mlx-lm reads: 1.1, where 1e-5 is a number and yes is true.
 * @throws UserError where there is no such file, or it holds something else
 */
export async function readSettingsFile(path: string): Promise<Record<string, unknown>> {
  const text = await inputText(path);
  if (text === null) {
    throw new UserError(`there is no configuration file ${path}`, { code: ExitCode.notFound, hint: "Check --config." });
  }
  const wrong = (problem: string) =>
    new UserError(`the configuration file ${path} ${problem}`, {
      code: ExitCode.usage,
      hint: "It holds lines such as learning_rate: 1e-5",
    });
  if (text.length > largestFile) throw wrong(`has ${text.length} characters: no settings are that long`);
  const document = parseDocument(text, { version: "1.1" });
  const [problem] = document.errors;
  if (problem) throw wrong(`is not YAML: ${problem.message.split("\n")[0]}`);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
    // An alias to what it lies in would make a value without end, which this refuses.
    JSON.stringify(value);
  } catch (error) {
    throw wrong(`cannot be read: ${(error as Error).message}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong("must hold names and values");
  return value as Record<string, unknown>;
}

const isGiven = ([, value]: [string, unknown]) => value !== undefined && value !== null;

/** The names given that there are not, and what they may have meant. */
export function unknownSettings(given: Readonly<Record<string, unknown>>): [name: string, similar: string | null][] {
  const unknown = (names: object, known: object): [string, string | null][] =>
    Object.keys(names)
      .filter((name) => !Object.hasOwn(known, name))
      .map((name) => [name, nearest(name, Object.keys(known), 1)[0] ?? null]);
  const datasets = [given.hf_dataset].flat().filter((one) => typeof one === "object" && one !== null);
  const inDatasets = datasets.flatMap((one) => unknown(one as object, HubDataset.shape));
  return [
    ...unknown(given, Settings.shape),
    ...inDatasets.map(([name, similar]): [string, string | null] => [
      `hf_dataset.${name}`,
      similar && `hf_dataset.${similar}`,
    ]),
  ];
}

/**
 * Settings from several places, those of earlier ones first; what is null counts as not given.
 * @throws UserError that names the setting with a wrong value
 */
export function resolveSettings(...places: Readonly<Record<string, unknown>>[]): Settings {
  const merged = Object.fromEntries(
    [defaults, ...places.toReversed()].flatMap((p) => Object.entries(p).filter(isGiven)),
  );
  // What is null by default has no entry where nothing is given.
  const parsed = Settings.safeParse({ ...nothingGiven, ...merged });
  if (!parsed.success) {
    throw new UserError(`the settings are wrong: ${problemOf(parsed.error)}`, {
      code: ExitCode.usage,
      hint: "See mlxlm lora --help",
    });
  }
  const settings = parsed.data;
  // Full fine-tuning has no adapter's matrices, which its record says.
  const lora_parameters =
    settings.fine_tune_type === "full" ? null : parseLoraParameters(settings.lora_parameters, "the settings");
  return { ...settings, lora_parameters };
}

const nothingGiven = Object.fromEntries(Object.entries(defaults).filter(([, value]) => value === null));
