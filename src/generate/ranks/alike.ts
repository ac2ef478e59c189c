/** Whether the caches of all processes can do the same: with layers spread over them, each may have other kinds. */
import { isLaunched } from "../../mlx/group-environment";
import { gatherJson } from "../../mlx/group-messages";
import type { LanguageModel } from "../../models";
import type { CacheOptions } from "../../nn";
import { configuration } from "../prompt-cache-fit";
import { everyone } from "./orders";

/** Tokens that no window holds. */
const long = 1e6;

interface Abilities {
  /** What sets layers' caches apart. */
  kinds: string[];
  /** Whether all forget any number of tokens at any time. */
  forget: boolean;
}

function abilitiesOf(model: LanguageModel, options?: CacheOptions): Abilities {
  const cache = model.makeCache(options);
  try {
    const kinds = [...new Set(cache.map(configuration))].sort();
    return { kinds, forget: cache.every((layer) => layer.isTrimmable(long)) };
  } finally {
    for (const layer of cache) layer.dispose();
  }
}

const known = new WeakMap<LanguageModel, Map<number | null, boolean>>();

/** Whether what a process sees of its own caches is so on all: that tokens can be forgotten. All call it; true on a process alone. */
export function forgetAlike(model: LanguageModel, { maxSize = null }: CacheOptions = {}): boolean {
  if (!isLaunched()) return true;
  const found = known.get(model) ?? new Map<number | null, boolean>();
  const alike = found.get(maxSize) ?? compared(model, maxSize);
  known.set(model, found.set(maxSize, alike));
  return alike;
}

function compared(model: LanguageModel, maxSize: number | null): boolean {
  const all = gatherJson(everyone(), abilitiesOf(model, { maxSize }));
  const [first] = all.map(({ kinds }) => kinds.join());
  return all.every(({ kinds }) => kinds.join() === first) || all.every(({ forget }) => forget);
}

/** Whether something is so on all processes, which all must call it. */
export const everywhere = (own: boolean): boolean => gatherJson(everyone(), own).every((one) => one);

/** The least of what processes have, all of which must call it. */
export const leastOf = (own: number): number => (isLaunched() ? Math.min(...gatherJson(everyone(), own)) : own);
