/** Keeps a model's weights resident on GPUs that would page them out (Metal), for the time of some work. */
import * as mx from "../mlx";
import type { LanguageModel } from "./language-model";

/** The share of the recommended working set beyond which generation gets slow. */
const comfortable = 0.9;

/** Bytes that the device recommends to keep resident; null where it recommends none. */
function recommendedBytes(): number | null {
  const recommended = mx.deviceInfo().max_recommended_working_set_size;
  return typeof recommended === "number" && mx.isAvailable("metal") ? recommended : null;
}

/** A warning where the model fits the device's memory only just, else null. */
export function tightFit(model: LanguageModel): string | null {
  const recommended = recommendedBytes();
  if (recommended === null) return null;
  const bytes = model.namedParameters().reduce((sum, [, tensor]) => sum + tensor.nbytes, 0);
  if (bytes <= comfortable * recommended) return null;
  const mib = (size: number) => Math.floor(size / 2 ** 20);
  return `the model needs ${mib(bytes)} MiB, close to the ${mib(recommended)} MiB that this machine recommends: generation may be slow.`;
}

/** How many works hold the limit up, and what it was before the first. */
let holders = 0;
let before = 0;

/**
 * Raises the wired limit to what the device recommends and returns the function that ends that; the last of several
 * works restores it. Does nothing on devices that recommend none.
 */
export function withWiredLimit(): () => void {
  const recommended = recommendedBytes();
  if (recommended === null) return () => {};
  if (holders++ === 0) before = mx.setWiredLimit(recommended);
  return () => {
    if (--holders > 0) return;
    mx.synchronize();
    mx.setWiredLimit(before);
  };
}
