/** The tensors of a file that say how positions are stretched. */
import { basename } from "node:path";
import { UserError } from "../../errors";
import * as mx from "../../mlx";
import { ropeFactorsName, scalingOf, stretchNames } from "../../models";
import type { ModelConfig } from "../config";
import type { GgufHeader } from "./header";
import { GgufData } from "./tensors";

/** Wider than any head: a file may claim any size of a tensor. */
const widest = 4096;

/** Their numbers, by their names. */
export function rotationFactors({ tensors }: GgufHeader): ReadonlyMap<string, readonly number[]> {
  const data = new GgufData();
  const factors = new Map<string, readonly number[]>();
  try {
    for (const name of stretchNames) {
      const tensor = tensors.get(name);
      if (tensor?.shape.length !== 1 || tensor.shape[0]! > widest) continue;
      factors.set(
        name,
        mx.scope(() => [...(data.readPlain(tensor).astype("float32").toArray() as Float32Array)]),
      );
    }
  } finally {
    data.close();
  }
  return factors;
}

/**
 * `rope_scaling`, where the factors are those of Llama 3; nothing where there are none, or all are 1.
 * @throws UserError where they are others
 */
export function llama3Scaling(
  read: ReadonlyMap<string, readonly number[]>,
  config: ModelConfig,
  path: string,
): ModelConfig {
  const factors = read.get(ropeFactorsName);
  if (!factors) return {};
  const turning = Math.trunc((config.head_dim as number) * ((config.partial_rotary_factor as number) ?? 1));
  // A file may claim any width of a head.
  const scaling = turning === 2 * factors.length ? scalingOf(factors, config.rope_theta as number) : undefined;
  if (!scaling) {
    throw new UserError(
      `${basename(path)} stretches the rotation by ${ropeFactorsName} in a way that is not Llama 3's`,
      {
        hint: "Take the model's safetensors.",
      },
    );
  }
  return scaling.factor === 1 ? {} : { rope_scaling: { rope_type: "llama3", ...scaling } };
}
