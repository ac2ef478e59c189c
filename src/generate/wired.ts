/** Keeps a model's weights resident on GPUs that would page them out (Metal), for the time of a generation. */
import * as mx from "../mlx";
import type { LanguageModel } from "../models";

/** The share of the recommended working set beyond which generation gets slow. */
const comfortable = 0.9;

/**
 * Raises the wired limit to what the device recommends and returns the function that restores it. Does nothing on
 * devices that recommend none.
 */
export function withWiredLimit(model: LanguageModel, warn: (message: string) => void = console.error): () => void {
  const recommended = mx.deviceInfo().max_recommended_working_set_size;
  if (typeof recommended !== "number" || !mx.isAvailable("metal")) return () => {};
  const bytes = model.namedParameters().reduce((sum, [, tensor]) => sum + tensor.nbytes, 0);
  if (bytes > comfortable * recommended) {
    const mib = (size: number) => Math.floor(size / 2 ** 20);
    warn(
      `The model needs ${mib(bytes)} MiB, close to the ${mib(recommended)} MiB that this machine recommends: generation may be slow.`,
    );
  }
  const before = mx.setWiredLimit(recommended);
  return () => {
    mx.synchronize();
    mx.setWiredLimit(before);
  };
}
