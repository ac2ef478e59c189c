/** Which weight files hold what one process of a pipeline needs. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import * as mx from "../mlx";
import { createModel, stageOf } from "../models";
import { indexName, readIndex } from "./checkpoint";
import { readConfig } from "./source";

export interface StageLayers {
  /** This process's layers: from where to where, of how many. */
  start: number;
  end: number;
  count: number;
}

/** What belongs to a layer has its number behind the first name that has one. */
const layerName = /^(.*?)\.(\d+)\./;

/** Layers of what is beside the trunk. */
const others = /vis|image|audio|speech|video|mtp|draft/i;

/**
 * The files with tensors that a process needs: those of its own layers, and of none. null where the names do not say
 * which tensors belong to which layer.
 * @param index the file of each tensor
 */
export function filesOfLayers(
  index: ReadonlyMap<string, string>,
  { start, end, count }: StageLayers,
): ReadonlySet<string> | null {
  const numbers = new Map<string, Set<number>>();
  for (const name of index.keys()) {
    const [, stem, number] = layerName.exec(name) ?? [];
    if (stem === undefined || others.test(stem)) continue;
    numbers.set(stem, (numbers.get(stem) ?? new Set()).add(Number(number)));
  }
  const isTrunk = (found: ReadonlySet<number>) => Array.from({ length: count }, (_, i) => i).every((i) => found.has(i));
  const stems = [...numbers].filter(([, found]) => isTrunk(found)).map(([stem]) => stem);
  if (stems.length !== 1) return null;
  const isNeeded = (name: string) => {
    const [, stem, number] = layerName.exec(name) ?? [];
    if (stem !== stems[0]) return true;
    // What comes behind the layers are draft layers, or nothing that is known here.
    return Number(number) >= count || (Number(number) >= start && Number(number) < end);
  };
  return new Set([...index].filter(([name]) => isNeeded(name)).map(([, file]) => file));
}

/**
 * The weight files that this process of a pipeline needs, of a folder that may have none of them yet. null where it needs
 * all, or nothing says which.
 * @throws UserError for a configuration that is broken, and a model whose layers cannot be spread
 */
export async function stageFiles(folder: string, group: mx.distributed.Group): Promise<ReadonlySet<string> | null> {
  if (!existsSync(join(folder, indexName))) return null;
  // Making a model draws random numbers, which are to be the same as without.
  const before = mx.keep(mx.scope(() => mx.contiguous(mx.random.state.get())));
  const model = await createModel(await readConfig(folder), folder);
  try {
    return filesOfLayers(await readIndex(folder), stageOf(model, group));
  } finally {
    model.dispose();
    mx.random.state.set(before);
    mx.release(before);
  }
}

/** Weight files that the index of a folder names and that are not in it. */
export async function absentWeights(folder: string): Promise<ReadonlySet<string>> {
  if (!existsSync(join(folder, indexName))) return new Set();
  return new Set([...(await readIndex(folder)).values()].filter((file) => !existsSync(join(folder, file))));
}
