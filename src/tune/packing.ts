/** Packing: several samples in a row, without padding. Krell et al. 2021, arXiv:2107.02027. */
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import type { LanguageModel } from "../models";
import { type Cache, type DecoderLayer, DynamicNTKRoPE, KVCache, PackedCache, RotatingKVCache } from "../nn";

/** What each layer gets in place of a cache, so that samples in a row are apart. */
export function packedCaches(
  model: LanguageModel,
  { positions, segments }: { positions: Tensor; segments: Tensor },
): Cache[] {
  const cache = new PackedCache(positions, segments);
  return model.makeCache().map(() => cache);
}

/**
 * What keeps the model from telling apart samples in a row; null where nothing does. Attention can, by its mask. What
 * carries a state from token to token cannot.
 */
export function packingProblem(model: LanguageModel): string | null {
  const caches = model.makeCache();
  const other = caches.find((cache) => !(cache instanceof KVCache || cache instanceof RotatingKVCache));
  for (const cache of caches) cache.dispose();
  if (other) return "has layers that remember more of earlier tokens than keys and values";
  const isUsual = ({ mask }: DecoderLayer<Cache>) => mask === undefined || /^(full|window|none)\b/.test(mask.key);
  if (!model.layers.every(isUsual)) return "attends by blocks of the whole row";
  const stretches = model.namedModules().some(([, module]) => module instanceof DynamicNTKRoPE);
  return stretches ? "rotates by the length of the whole row" : null;
}

/** @throws UserError where samples of a row would see each other */
export function checkPacking(model: LanguageModel, name: string): void {
  const problem = packingProblem(model);
  if (problem === null) return;
  throw new UserError(`${name} cannot be trained with packed samples: it ${problem}`, {
    code: ExitCode.usage,
    hint: "Leave out --packing.",
  });
}
