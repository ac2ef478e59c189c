/**
 * Factors that stand beside weights, `blk.0.ffn_up.scale`, as files made of NVIDIA's NVFP4 checkpoints have them: one number for a
 * matrix, or for each expert. `input_scale` says how activations are rounded on GPUs, and is not read.
 */
import { basename } from "node:path";
import { UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { TensorNames } from "../../models";
import { nvfp4Largest } from "../../nn";
import { fields, groups, halved, part, type Unpacked } from "./blocks";
import type { GgufHeader, GgufTensor } from "./header";
import type { PlacedParameter } from "./placed";
import { GgufData } from "./tensors";
import type { ElementType } from "./types";

/** Twice the values of NVFP4's codes. */
const doubled = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/** Groups of 16 of NVFP4 with a factor, as groups of 32 with eight bits: steps are a tenth of those of the larger half. */
function unpackScaled(blocks: Tensor, factor: number): Unpacked {
  const codes = fields(part(blocks, 4).unflatten(-1, [4, 8]), [0, 4], 15).flatten(-2, -1);
  const numbers = mx.take(mx.array(doubled, "int8"), codes.astype("uint32"), { axis: 0 });
  const scales = mx.fromFp8(part(blocks, 0, 4), "float32").multiply(factor / 2);
  return halved(groups(numbers.flatten(-2, -1), 16), scales.flatten(-2, -1), doubled.at(-1)!, 10, 8);
}

/** A type whose numbers are all multiplied. @param factor is read when it is needed */
function scaledType(type: ElementType, factor: () => number): ElementType {
  if (type.affine?.mode === "nvfp4") {
    return {
      ...type,
      hasFactor: true,
      affine: { bits: 8, groupSize: 32 },
      unpack: (blocks) => unpackScaled(blocks, factor()),
    };
  }
  return {
    ...type,
    hasFactor: true,
    unpack(blocks) {
      const { weight, scales, biases } = type.unpack(blocks);
      if (!scales) return { weight: weight.multiply(factor()) };
      return { weight, scales: scales.multiply(factor()), biases: biases!.multiply(factor()) };
    },
  };
}

function numberOf(tensor: GgufTensor): number {
  const data = new GgufData();
  try {
    return mx.scope(() => data.readPlain(tensor).astype("float32").item() as number);
  } finally {
    data.close();
  }
}

/** The file without such factors: matrices have them in their types, experts as parameters of their own. */
export interface Scaled {
  header: GgufHeader;
  experts: PlacedParameter[];
}

/** @throws UserError for factors that do not fit to their weights */
export function withScales(header: GgufHeader, names: TensorNames, path: string): Scaled {
  const tensors = new Map(header.tensors);
  const experts: PlacedParameter[] = [];
  for (const [name, scale] of header.tensors) {
    const [, base, kind] = /^(.+)\.((?:input_)?scale)$/.exec(name) ?? [];
    const weight = base === undefined ? undefined : tensors.get(`${base}.weight`);
    // Some architectures have parameters of that name.
    if (!weight || (kind === "scale" && names.path(name))) continue;
    tensors.delete(name);
    if (kind !== "scale") continue;
    const count = scale.shape.reduce((product, size) => product * size, 1);
    const { mode } = weight.type.affine ?? {};
    const place = names.path(`${base}.weight`);
    if (count === 1 && mode !== "mxfp4") {
      let factor: number | undefined;
      const type = scaledType(weight.type, () => (factor ??= numberOf(scale)));
      tensors.set(`${base}.weight`, { ...weight, type });
    } else if (place && mode === "nvfp4" && weight.shape.length === 3 && count === weight.shape[0]) {
      experts.push({
        path: place[0],
        kind: "global_scale",
        sources: [scale],
        affine: undefined,
        blocks: undefined,
        make: ([factors]) => factors!.astype("float32").flatten().multiply(nvfp4Largest),
      });
    } else {
      throw new UserError(`${name} of ${basename(path)} has ${count} factors, which mlxlm has no place for`, {
        hint: "Take the model's safetensors, or another GGUF file of it.",
      });
    }
  }
  return { header: { ...header, tensors }, experts };
}
