/** Adapters of a model that is divided among processes: each has its part of their factors. */
import type { LanguageModel } from "../../models";
import { openAdapter } from "../../tune/adapter-files";
import type { AdapterPool, PooledAdapter } from "../../tune/adapter-pool";
import { checkSameAdapter } from "../same-model";
import { partWaysUnlessShared } from "./lost";
import { onAll } from "./on-all";
import { everyone, numberOf, tell } from "./orders";
import { inTurn } from "./turns";

const numbers = new WeakMap<PooledAdapter, number>();
let loaded = 0;

/** The number of an adapter that the other processes have too. */
export function numberOfAdapter(adapter: PooledAdapter): number {
  const number = numbers.get(adapter);
  if (number === undefined) throw new Error("the other processes do not have this adapter");
  return number;
}

/** This process's part of an adapter. All processes call it. @throws UserError on all where it fails on any of them */
export async function loadPart(pool: AdapterPool, folder: string): Promise<PooledAdapter> {
  const group = everyone();
  await onAll(group, () => openAdapter(folder));
  await checkSameAdapter(group, folder);
  const load = async () => {
    const adapter = await pool.load(folder);
    if (!adapter) throw new Error(`${folder} is no LoRA adapter`);
    return adapter;
  };
  return await onAll(group, load, (adapter) => pool.unload(adapter));
}

/** On the first process: loads an adapter on all. @throws UserError where it fails on any of them */
export function loadOnAll(model: LanguageModel, pool: AdapterPool, folder: string): Promise<PooledAdapter> {
  return inTurn(async () => {
    const number = loaded++;
    tell({ type: "adapt", model: numberOf(model), adapter: number, folder });
    try {
      const adapter = await loadPart(pool, folder);
      numbers.set(adapter, number);
      return adapter;
    } catch (error) {
      partWaysUnlessShared(error);
      throw error;
    }
  });
}

/** On the first process: gives an adapter's memory back on all. */
export function unloadOnAll(model: LanguageModel, pool: AdapterPool, adapter: PooledAdapter): Promise<void> {
  return inTurn(() => {
    tell({ type: "unadapt", model: numberOf(model), adapter: numberOfAdapter(adapter) });
    pool.unload(adapter);
  });
}
