/**
 * The state of a training, in one file beside the adapters: parameters, optimizer, random key, and how far it got. It is
 * renamed into place, so whenever the process ends, what lies there is one step's whole state.
 */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { replaceFile } from "../atomic-file";
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { readSafetensorsHeader } from "../mlx/safetensors-header";
import { problemOf } from "./adapter-files";

const Point = z.tuple([z.number(), z.number()]);

const Progress = z.object({
  /** Steps done. */
  iteration: z.int().nonnegative(),
  /** Before which steps there was a validation: it takes part in the order of the data. */
  validations: z.array(z.int().positive()),
  trainedTokens: z.number(),
  /** Since the last report: losses, tokens, steps. */
  pending: z.object({ loss: z.number(), tokens: z.number(), steps: z.int().nonnegative() }),
  /** What was reported: losses by the number of steps done. */
  history: z.object({ train: z.array(Point), val: z.array(Point) }).default({ train: [], val: [] }),
});

export type Progress = z.infer<typeof Progress>;

const Facts = z.object({
  version: z.literal(1),
  progress: Progress,
  optimizerStep: z.int().nonnegative(),
  /** The latest learning rate. */
  rate: z.number(),
  /** What must be the same for a training to go on as if it had never ended. */
  settings: z.record(z.string(), z.unknown()),
});

export interface TrainingState {
  progress: Progress;
  rate: number;
  settings: Readonly<Record<string, unknown>>;
  parameters: ReadonlyMap<string, Tensor>;
  optimizer: { step: number; tensors: ReadonlyMap<string, Tensor> };
  /** Sums of gradients since the last update. */
  gradients: ReadonlyMap<string, Tensor> | null;
  /** The random generator's key. */
  random: Tensor;
}

/** The file of the state, under an adapter's folder. */
export const statePath = (folder: string) => join(folder, "state", "training.safetensors");

/** Prefixes of the groups of tensors. */
const groups = { parameters: "parameters.", optimizer: "optimizer.", gradients: "gradients." };
const randomName = "random";

const prefixed = (prefix: string, tensors: Iterable<readonly [string, Tensor]>) =>
  [...tensors].map(([name, tensor]): [string, Tensor] => [prefix + name, tensor]);

export async function writeTrainingState(folder: string, state: TrainingState): Promise<void> {
  const { progress, rate, settings, optimizer } = state;
  const facts: z.infer<typeof Facts> = {
    version: 1,
    progress,
    optimizerStep: optimizer.step,
    rate,
    settings: { ...settings },
  };
  const tensors = new Map([
    ...prefixed(groups.parameters, state.parameters),
    ...prefixed(groups.optimizer, optimizer.tensors),
    ...prefixed(groups.gradients, state.gradients ?? []),
    [randomName, state.random] as [string, Tensor],
  ]);
  const path = statePath(folder);
  await mkdir(dirname(path), { recursive: true });
  await replaceFile(path, (temporary) => mx.saveSafetensors(temporary, tensors, { training: JSON.stringify(facts) }));
}

/**
 * Reads a state whose tensors the caller disposes of.
 * @throws UserError where there is none, it is broken, or it belongs to other settings
 */
export async function readTrainingState(
  folder: string,
  settings: Readonly<Record<string, unknown>>,
): Promise<TrainingState> {
  const path = statePath(folder);
  if (!existsSync(path)) {
    throw new UserError(`there is no training to resume in ${folder}`, {
      code: ExitCode.notFound,
      hint: `Name the folder that it saved to: --adapter-path FOLDER. It holds ${path.slice(folder.length + 1)}`,
    });
  }
  const { metadata } = await readSafetensorsHeader(path);
  const facts = factsOf(metadata.get("training"), path);
  compareSettings(facts.settings, settings);
  const { arrays } = mx.loadSafetensors(path);
  mx.eval(arrays);
  const group = (prefix: string) =>
    new Map([...arrays].flatMap(([name, x]) => (name.startsWith(prefix) ? [[name.slice(prefix.length), x]] : [])));
  const random = arrays.get(randomName);
  if (random?.dtype !== "uint32" || random.size !== 2) {
    for (const tensor of arrays.values()) tensor.dispose();
    throw broken(path, "it lacks the random generator's key");
  }
  const gradients = group(groups.gradients) as Map<string, Tensor>;
  return {
    progress: facts.progress,
    rate: facts.rate,
    settings: facts.settings,
    parameters: group(groups.parameters) as Map<string, Tensor>,
    optimizer: { step: facts.optimizerStep, tensors: group(groups.optimizer) as Map<string, Tensor> },
    gradients: gradients.size > 0 ? gradients : null,
    random,
  };
}

function broken(path: string, problem: string): UserError {
  return new UserError(`${path} is not the state of a training: ${problem}`, {
    hint: "Start from saved weights instead: --resume-adapter-file FILE",
  });
}

function factsOf(text: string | undefined, path: string): z.infer<typeof Facts> {
  if (text === undefined) throw broken(path, "it does not say how far the training got");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw broken(path, "what it says of the training is not JSON");
  }
  const parsed = Facts.safeParse(value);
  if (!parsed.success) throw broken(path, problemOf(parsed.error));
  return parsed.data;
}

function compareSettings(before: Readonly<Record<string, unknown>>, now: Readonly<Record<string, unknown>>): void {
  const written = (value: unknown) => JSON.stringify(value) ?? "nothing";
  const differing = Object.keys({ ...before, ...now }).filter((name) => written(before[name]) !== written(now[name]));
  const [name] = differing;
  if (name === undefined) return;
  throw new UserError(
    `the training cannot be resumed with another ${name}: it was ${written(before[name])}, not ${written(now[name])}`,
    {
      code: ExitCode.usage,
      hint: "Leave the setting out, or start a new training from the weights: --resume-adapter-file FILE",
    },
  );
}
