/** From caches of single sequences to one of a batch. */
import { UserError } from "../../errors";
import type { BatchCache } from "./batch";
import type { Cache } from "./cache";
import { kindOf } from "./kind";

/**
 * One layer's caches of several sequences as one. They are copied and stay as they are.
 * @throws UserError for a kind that has no batched form
 */
export function mergeCaches(caches: readonly Cache[]): BatchCache {
  const kind = kindOf(caches[0]!);
  if (kind?.merge && caches.every((cache) => kindOf(cache) === kind)) return kind.merge(caches);
  throw new UserError("these caches have no batched form", {
    hint: "Quantized caches, and mixtures of kinds, serve one sequence at a time.",
  });
}
