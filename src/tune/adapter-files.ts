/** Adapters on disk: adapter_config.json says what they are, adapters.safetensors holds their weights. */
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { replaceFile } from "../atomic-file";
import { ExitCode, UserError } from "../errors";
import { type JsonObject, readJson } from "../json-file";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { readSafetensorsHeader, type SafetensorsHeader } from "../mlx/safetensors-header";
import type { LanguageModel } from "../models";
import { linearToLora } from "./linear-to-lora";

export const configName = "adapter_config.json";
export const weightsName = "adapters.safetensors";

/** How an adapter's matrices are made. `alpha`, which other programs have, is not the factor itself. */
export const LoraParameters = z
  .looseObject({
    rank: z
      .int()
      .positive()
      .max(2 ** 31 - 1),
    scale: z.number(),
    dropout: z.number().min(0).lt(1).default(0),
    keys: z.array(z.string()).nullish(),
  })
  .meta({ title: "lora_parameters" });

export type LoraParameters = z.infer<typeof LoraParameters>;

/** What loading needs of a configuration; the rest of it is a record of the training. */
const AdapterConfig = z.looseObject({
  fine_tune_type: z.enum(["lora", "dora", "full"]).default("lora"),
  num_layers: z.int().optional(),
  lora_parameters: z.unknown().optional(),
});

/** @throws UserError that names the field, and where `alpha` stands for `scale` what to do about it */
export function parseLoraParameters(value: unknown, where: string): LoraParameters {
  const parsed = LoraParameters.safeParse(value);
  if (parsed.success) return parsed.data;
  const given = typeof value === "object" && value !== null ? value : {};
  const alpha = "alpha" in given && !("scale" in given);
  throw new UserError(`${where}: lora_parameters ${problemOf(parsed.error)}`, {
    code: ExitCode.usage,
    hint: alpha
      ? 'There is "alpha" instead of "scale". Here the product is multiplied by "scale", which is alpha / rank elsewhere.'
      : 'For example {"rank": 8, "scale": 20.0, "dropout": 0.0}',
  });
}

/** The first thing that a schema found wrong, with its place. */
export function problemOf({ issues }: z.ZodError): string {
  let issue = issues[0]!;
  const path = [...issue.path];
  while (issue.code === "invalid_union" && issue.errors.length > 0) {
    // Of the forms that a value may have, the one that it came closest to.
    const [closest] = issue.errors.toSorted((a, b) => b[0]!.path.length - a[0]!.path.length);
    issue = closest![0]!;
    path.push(...issue.path);
  }
  return (path.length > 0 ? `"${path.join(".")}": ` : "") + issue.message;
}

/** Writes the configuration in mlx-lm's form: sorted keys. */
export async function writeAdapterConfig(folder: string, config: Readonly<Record<string, unknown>>): Promise<void> {
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
  await mkdir(folder, { recursive: true });
  await replaceFile(join(folder, configName), (path) => writeFile(path, JSON.stringify(sorted, null, 4)));
}

/** Writes the trained parameters, whole or not at all. */
export async function writeAdapterWeights(path: string, weights: Iterable<readonly [string, Tensor]>): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await replaceFile(path, (temporary) => mx.saveSafetensors(temporary, new Map(weights)));
}

/** What `adapter_config.json` holds. @throws UserError where the folder has none, or it is broken */
export async function readAdapterConfig(folder: string): Promise<JsonObject> {
  if (existsSync(join(folder, configName))) return readJson(folder, configName);
  throw new UserError(`${folder} has no ${configName}`, {
    code: ExitCode.notFound,
    hint: "An adapter is a folder with adapter_config.json and adapters.safetensors, as mlxlm lora --train makes one.",
  });
}

/** An adapter's folder, looked at but for the values of its tensors. */
export interface OpenedAdapter {
  /** Of its weights. */
  path: string;
  header: SafetensorsHeader;
}

export type AdapterKind = { type: "full" } | { type: "lora" | "dora"; numLayers: number; parameters: LoraParameters };

/** @throws UserError where the folder or a file is missing or broken */
export async function openAdapter(folder: string): Promise<OpenedAdapter & AdapterKind> {
  if (!existsSync(folder)) {
    throw new UserError(`there is no adapter folder ${folder}`, {
      code: ExitCode.notFound,
      hint: "Check the path: --adapter-path FOLDER",
    });
  }
  const raw = await readAdapterConfig(folder);
  if ("peft_type" in raw) {
    throw new UserError(`the adapter in ${folder} was made with PEFT, whose files are other ones`, {
      code: ExitCode.notFound,
      hint: "mlxlm reads adapters of mlxlm and mlx-lm: adapter_config.json and adapters.safetensors.",
    });
  }
  const config = AdapterConfig.safeParse(raw);
  if (!config.success) throw new UserError(`${configName} of ${folder}: ${problemOf(config.error)}`);
  const { fine_tune_type: type, num_layers: numLayers, lora_parameters: given } = config.data;
  const path = join(folder, weightsName);
  if (!existsSync(path)) {
    throw new UserError(`${folder} has no ${weightsName}`, {
      code: ExitCode.notFound,
      hint: "The training may have ended before its first checkpoint.",
    });
  }
  const header = await readSafetensorsHeader(path);
  if (type === "full") return { path, header, type };
  const parameters = parseLoraParameters(given, `${configName} of ${folder}`);
  if (numLayers === undefined) throw new UserError(`${configName} of ${folder} lacks "num_layers"`);
  return { path, header, type, numLayers, parameters };
}

/**
 * Gives the model the adapters of a folder (`adapter_config.json`, `adapters.safetensors`), or for full fine-tuning its
 * new weights.
 * @throws UserError where the folder, a file or a tensor is missing, broken, or does not fit the model
 */
export async function applyAdapters(model: LanguageModel, folder: string): Promise<void> {
  // The weights are looked at before the model is changed.
  const adapter = await openAdapter(folder);
  if (adapter.type !== "full") {
    linearToLora(model, adapter.numLayers, { ...adapter.parameters, dora: adapter.type === "dora" });
  }
  checkTensors(model, adapter.header, folder, adapter.type !== "full");
  loadTensors(model, adapter.path);
  mx.random.settle();
}

/** How many of a file's tensors an error names. */
const mostProblems = 10;

/** Names of an adapter's own parameters. */
const adapterLeaves = /(^|\.)(lora_a|lora_b|m)$/;

function checkTensors(model: LanguageModel, header: SafetensorsHeader, folder: string, onlyAdapters: boolean): void {
  const known = new Map(model.namedParameters().filter(([name]) => !onlyAdapters || adapterLeaves.test(name)));
  const parts = [...header.tensors].map(([name, { shape }]) => ({ name, shape, expected: known.get(name)?.shape }));
  const problem = incompatible(folder, parts);
  if (problem) throw problem;
}

/** What is wrong with the shapes of a file's tensors; null where all are as the model wants them. */
export function incompatible(
  folder: string,
  parts: readonly { name: string; shape: readonly number[]; expected?: readonly number[] }[],
): UserError | null {
  const problems = parts.flatMap(({ name, shape, expected }) => {
    if (!expected) return [`  ${name}: not an adapter parameter in the model`];
    const fits = expected.join() === shape.join();
    const [ours, theirs] = [expected, shape].map((dims) => `(${dims.join(", ")})`);
    return fits ? [] : [`  ${name}: adapter shape ${theirs} does not match model parameter shape ${ours}`];
  });
  if (problems.length === 0) return null;
  const shown = problems.slice(0, mostProblems);
  if (problems.length > shown.length) shown.push(`  and ${problems.length - shown.length} more`);
  return new UserError(`the adapter in ${folder} contains incompatible tensors:\n${shown.join("\n")}`, {
    hint: "Check that it was trained on this model.",
  });
}

/** Takes the file's tensors as parameters; those that it lacks stay. */
function loadTensors(model: LanguageModel, path: string): void {
  mx.scope(() => {
    const { arrays } = mx.loadSafetensors(path);
    mx.eval(arrays);
    model.update(arrays);
  });
}

/** Takes the weights that a training saved, to go on from. Tensors that the model lacks are passed over, as in mlx-lm. */
export async function resumeWeights(model: LanguageModel, path: string): Promise<void> {
  if (!existsSync(path)) {
    throw new UserError(`there is no file ${path}`, {
      code: ExitCode.notFound,
      hint: "Name adapter weights: --resume-adapter-file FILE.safetensors",
    });
  }
  const header = await readSafetensorsHeader(path);
  const known = new Map(model.namedParameters());
  const fitting = [...header.tensors.keys()].filter((name) => known.has(name));
  if (fitting.length === 0) {
    throw new UserError(`no tensor of ${path} belongs to this model with its adapters`, {
      hint: "Train with the same --fine-tune-type, keys and model as before.",
    });
  }
  mx.scope(() => {
    const { arrays } = mx.loadSafetensors(path);
    mx.eval(arrays);
    model.loadWeights(
      fitting.map((name) => [name, arrays.get(name)!]),
      { strict: false },
    );
  });
}
