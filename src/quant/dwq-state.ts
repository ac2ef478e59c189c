/** A training of DWQ in one file: parameters, the optimizer's means, and how far it got. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { replaceFile } from "../atomic-file";
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { readSafetensorsHeader } from "../mlx/safetensors-header";
import type { AdamW } from "../optim";
import type { DwqProgress } from "./dwq";

const Facts = z.object({
  progress: z.object({
    iteration: z.int().positive(),
    initial: z.number().nullable(),
    latest: z.number().nullable(),
    validated: z.int(),
    trainedTokens: z.number(),
    pending: z.object({ loss: z.number(), tokens: z.number() }),
  }),
  optimizerStep: z.int().nonnegative(),
});

const factsKey = "training";

/** Prefixes of the groups of tensors. */
const groups = { parameters: "parameters.", optimizer: "optimizer." };

const stateFile = (work: string) => join(work, "training.safetensors");

export async function saveTraining(
  work: string,
  progress: DwqProgress,
  parameters: ReadonlyMap<string, Tensor>,
  optimizer: AdamW,
): Promise<void> {
  const tensors = new Map<string, Tensor>();
  for (const [path, tensor] of parameters) tensors.set(groups.parameters + path, tensor);
  for (const [name, tensor] of optimizer.state) tensors.set(groups.optimizer + name, tensor);
  const facts: z.infer<typeof Facts> = { progress, optimizerStep: optimizer.step };
  await replaceFile(stateFile(work), (path) =>
    mx.saveSafetensors(path, tensors, { [factsKey]: JSON.stringify(facts) }),
  );
}

export interface SavedTraining {
  progress: DwqProgress;
  /** Kept: the caller takes them over. */
  parameters: Map<string, Tensor>;
}

/**
 * What was saved, of the given parameters; null where nothing was yet. The optimizer takes over its part.
 * @throws UserError where the file is unsound or of another model
 */
export async function loadTraining(
  work: string,
  trained: readonly (readonly [path: string, tensor: Tensor])[],
  optimizer: AdamW,
): Promise<SavedTraining | null> {
  const path = stateFile(work);
  if (!existsSync(path)) return null;
  const wrong = (problem: string) =>
    new UserError(`${path} is not the state of this training: ${problem}`, { hint: `Delete ${work} and begin anew.` });
  const { metadata, tensors } = await readSafetensorsHeader(path);
  const facts = Facts.safeParse(parsed(metadata.get(factsKey)));
  if (!facts.success) throw wrong("it does not say how far it got");
  for (const [name, { shape }] of trained) {
    for (const key of [groups.parameters + name, `${groups.optimizer}${name}.m`, `${groups.optimizer}${name}.v`]) {
      const found = tensors.get(key);
      if (found?.dtype !== "F32") throw wrong(`it lacks ${key}`);
      if (found.shape.join() !== shape.join()) throw wrong(`${key} is (${found.shape.join(", ")})`);
    }
  }
  return mx.scope(() => {
    const { arrays } = mx.loadSafetensors(path);
    mx.eval(arrays);
    const group = (prefix: string) =>
      [...arrays].flatMap(([name, tensor]): [string, Tensor][] =>
        name.startsWith(prefix) ? [[name.slice(prefix.length), tensor]] : [],
      );
    optimizer.step = facts.data.optimizerStep;
    optimizer.load(group(groups.optimizer));
    return { progress: facts.data.progress, parameters: new Map(mx.keep(group(groups.parameters))) };
  });
}

function parsed(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? "");
  } catch {
    return undefined;
  }
}
