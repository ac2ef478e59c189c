/** Steps of GPTQ that are done, in files: the layers of each, and what the data had become behind the latest. */
import { join } from "node:path";
import { replaceFile } from "../atomic-file";
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { readSafetensorsHeader } from "../mlx/safetensors-header";
import { type Module, quantize } from "../nn";
import type { BlockWalk } from "./block-walk";

const stepFile = (work: string, step: number) => join(work, `step-${String(step).padStart(5, "0")}.safetensors`);
const statesFile = (work: string) => join(work, "states.safetensors");

/** In the header of the states: behind which step they are. */
const stepKey = "step";

/** Saves the layers of a step, then the states: what has states is whole. */
export async function saveStep(work: string, step: number, paths: readonly string[], walk: BlockWalk): Promise<void> {
  const modules = new Map<string, Module>(walk.model.namedModules());
  const tensors = paths.flatMap((path) =>
    modules
      .get(path)!
      .namedParameters()
      .map(([name, tensor]): [string, Tensor] => [`${path}.${name}`, tensor]),
  );
  await replaceFile(stepFile(work, step), (path) => mx.saveSafetensors(path, new Map(tensors)));
  const states = new Map(walk.states.map((state, i) => [`${i}`, state]));
  await replaceFile(statesFile(work), (path) => mx.saveSafetensors(path, states, { [stepKey]: `${step}` }));
}

/**
 * Gives a step's layers the form that they were saved in, and the walk the states behind it. Returns false where the step
 * is not done.
 * @throws UserError where a file is unsound or of another model
 */
export async function loadStep(
  work: string,
  step: number,
  paths: readonly string[],
  walk: BlockWalk,
  { bits, groupSize }: { bits: number; groupSize: number },
): Promise<boolean> {
  const latest = await latestStep(work);
  if (latest === null || step > latest) return false;
  const path = stepFile(work, step);
  await readSafetensorsHeader(path, hintOf(work));
  const chosen = new Set(paths);
  mx.scope(() => {
    const { arrays } = mx.loadSafetensors(path);
    quantize(walk.model, { predicate: (name) => chosen.has(name) && { bits, groupSize } });
    const layers = walk.model.namedModules().filter(([name]) => chosen.has(name));
    const names = new Set(layers.flatMap(([name, layer]) => layer.namedParameters().map(([own]) => `${name}.${own}`)));
    if (names.size !== arrays.size || [...arrays.keys()].some((name) => !names.has(name))) {
      throw new UserError(`${path} holds other layers than this model's`, { hint: hintOf(work) });
    }
    walk.model.loadWeights(arrays, { strict: false });
    mx.eval(arrays);
  });
  if (step === latest) walk.restore(statesOf(work, walk.batches.length));
  return true;
}

const hintOf = (work: string) => `Delete ${work} and begin anew.`;

async function latestStep(work: string): Promise<number | null> {
  const path = statesFile(work);
  if (!(await Bun.file(path).exists())) return null;
  const { metadata } = await readSafetensorsHeader(path, hintOf(work));
  const step = Number(metadata.get(stepKey));
  if (Number.isInteger(step) && step >= 0) return step;
  throw new UserError(`${path} does not say how far the work got`, { hint: hintOf(work) });
}

function statesOf(work: string, count: number): Tensor[] {
  const states = mx.keep(
    mx.scope(() => {
      const { arrays } = mx.loadSafetensors(statesFile(work));
      // A whole model, run at once, leaves none.
      if (arrays.size === 0) return [];
      return Array.from({ length: count }, (_, i) => arrays.get(`${i}`));
    }),
  );
  if (states.includes(undefined)) {
    mx.release(states);
    throw new UserError(`${statesFile(work)} is of other calibration data`, { hint: hintOf(work) });
  }
  mx.eval(states);
  return states as Tensor[];
}
