/** The tensors of a file that say how positions are stretched. */
import { basename } from "node:path";
import { UserError } from "../../errors";
import * as mx from "../../mlx";
import { ropeFactorsName, scalingOf } from "../../models";
import type { ModelConfig } from "../config";
import type { GgufHeader, GgufTensor } from "./header";
import { GgufData } from "./tensors";

/** Wider than any head: a file may claim any size of a tensor. */
const widest = 4096;

/** Numbers of tensors with one axis, no wider than a head. */
export type SmallTensors = Pick<ReadonlyMap<string, readonly number[]>, "get">;

/** Those of a file, read when they are asked for. */
export function smallTensors({ tensors }: GgufHeader): SmallTensors {
  const read = new Map<string, readonly number[]>();
  return {
    get(name) {
      const tensor = tensors.get(name);
      if (tensor?.shape.length !== 1 || tensor.shape[0]! > widest) return undefined;
      if (!read.has(name)) read.set(name, numbersOf(tensor));
      return read.get(name);
    },
  };
}

function numbersOf(tensor: GgufTensor): number[] {
  const data = new GgufData();
  try {
    return mx.scope(() => [...(data.readPlain(tensor).astype("float32").toArray() as Float32Array)]);
  } finally {
    data.close();
  }
}

/**
 * `rope_scaling`, where the factors are those of Llama 3; nothing where there are none, or all are 1.
 * @throws UserError where they are others
 */
export function llama3Scaling(read: SmallTensors, config: ModelConfig, path: string): ModelConfig {
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
