/** Weights held against the model that is to take them. Kernels trust sizes and dtypes: a wrong one ends the process. */
import { UserError } from "../errors";
import type { Dtype, QuantizationMode, Tensor } from "../mlx";
import * as mx from "../mlx";
import { isQuantizable, type Module, type Packing, packing, type Quantizable, type QuantizationConfig } from "../nn";

/** Says which file of which checkpoint a tensor is in. */
export type Whereabouts = (name: string) => string;

/** The ways of packing that MLX has. */
export const packingForms: Readonly<
  Record<QuantizationMode, { bits: readonly number[]; groupSizes: readonly number[] }>
> = {
  affine: { bits: [1, 2, 3, 4, 5, 6, 8], groupSizes: [32, 64, 128] },
  mxfp4: { bits: [4], groupSizes: [32] },
  mxfp8: { bits: [8], groupSizes: [32] },
  nvfp4: { bits: [4], groupSizes: [16] },
};

const again = "Download the model again, or make it anew from the original.";

/**
 * Checks all that config.json's `quantization` and the shapes of packed weights say, before layers are made of it.
 * @throws UserError for a way of packing that MLX lacks, or tensors that do not fit their layer
 */
export function checkQuantization(
  model: Module,
  config: QuantizationConfig,
  weights: ReadonlyMap<string, Tensor>,
  path: string,
  where: Whereabouts,
): void {
  const common = packingOf(config, "quantization", path);
  for (const [layer, module] of model.namedModules()) {
    const entry = Object.hasOwn(config, layer) ? config[layer] : undefined;
    const isEntry = entry === true || (typeof entry === "object" && entry !== null);
    if (isEntry && (!isQuantizable(module) || module.children().length > 0)) {
      throw new UserError(
        `config.json of ${path}: "quantization" has an entry for ${layer}, which cannot be quantized`,
        {
          hint: again,
        },
      );
    }
    if (entry === false || !isQuantizable(module)) continue;
    const parts = partsOf(layer, weights);
    if (!isEntry && !parts.scales) continue;
    const wrong = (problem: string): never => {
      throw new UserError(`the layer ${layer} ${problem} (${where(`${layer}.weight`)})`, { hint: again });
    };
    const own = typeof entry === "object" && entry !== null ? packingOf(entry, `quantization.${layer}`, path) : null;
    const how = own ?? (entry === true ? common : inferred(parts, module, wrong));
    checkLayer(module, parts, how, wrong);
  }
}

interface Parts {
  weight?: Tensor;
  scales?: Tensor;
  biases?: Tensor;
  global_scale?: Tensor;
}

const partsOf = (layer: string, weights: ReadonlyMap<string, Tensor>): Parts => ({
  weight: weights.get(`${layer}.weight`),
  scales: weights.get(`${layer}.scales`),
  biases: weights.get(`${layer}.biases`),
  global_scale: weights.get(`${layer}.global_scale`),
});

/** The packing that an object of config.json asks for. */
function packingOf(value: object, field: string, path: string): Packing {
  const { group_size, bits, mode = "affine" } = value as { group_size?: unknown; bits?: unknown; mode?: unknown };
  const wrong = (name: string, is: unknown, expected: readonly unknown[]): never => {
    const choices = expected.map((one) => JSON.stringify(one));
    const last = choices.pop();
    const listed = choices.length > 0 ? `${choices.join(", ")} or ${last}` : last;
    throw new UserError(`config.json of ${path}: "${field}.${name}" is ${JSON.stringify(is)}, but must be ${listed}`, {
      hint: again,
    });
  };
  if (typeof mode !== "string" || !Object.hasOwn(packingForms, mode))
    return wrong("mode", mode, Object.keys(packingForms));
  const allowed = packingForms[mode as QuantizationMode];
  const check = (name: string, is: unknown, expected: readonly number[]) => {
    if (is !== null && is !== undefined && !expected.includes(is as number)) wrong(name, is, expected);
  };
  check("bits", bits, allowed.bits);
  check("group_size", group_size, allowed.groupSizes);
  return packing({ groupSize: group_size as number, bits: bits as number, mode: mode as QuantizationMode });
}

/** The packing that shapes tell, as `quantizeForCheckpoint` will see it. */
function inferred({ weight, scales }: Parts, module: Quantizable, wrong: (problem: string) => never): Packing {
  const inputs = module.weight.dim(-1);
  const [words, groups] = [weight?.shape.at(-1) ?? 0, scales!.shape.at(-1) ?? 0];
  const [bits, groupSize] = [(words * 32) / inputs, inputs / groups];
  const modes: QuantizationMode[] = scales!.dtype === "uint8" ? ["mxfp4", "mxfp8", "nvfp4"] : ["affine"];
  const mode = modes.find(
    (one) => packingForms[one].bits.includes(bits) && packingForms[one].groupSizes.includes(groupSize),
  );
  if (mode) return { bits, groupSize, mode };
  return wrong(
    `has ${inputs} inputs in ${words} words and ${groups} groups of ${scales!.dtype} scales: no quantization of MLX's is so`,
  );
}

function checkLayer(module: Quantizable, parts: Parts, how: Packing, wrong: (problem: string) => never): void {
  const { bits, groupSize, mode } = how;
  const shape = module.weight.shape;
  const inputs = shape.at(-1)!;
  if (inputs % groupSize !== 0) wrong(`has ${inputs} inputs, no multiple of its group size ${groupSize}`);
  const rows = shape.slice(0, -1);
  const scaleType = mode === "affine" ? mx.isFloating : (dtype: Dtype) => dtype === "uint8";
  const check = (name: keyof Parts, size: number, isRight: (dtype: Dtype) => boolean) => {
    const tensor = parts[name];
    // What is missing is told with all that is.
    if (!tensor) return;
    const expected = [...rows, size];
    if (tensor.ndim !== expected.length || tensor.shape.some((dim, i) => dim !== expected[i])) {
      const is = `has ${name} (${tensor.shape.join(", ")})`;
      wrong(`${is}, but ${bits} bits in groups of ${groupSize} need (${expected.join(", ")})`);
    }
    if (!isRight(tensor.dtype)) wrong(`has ${name} of ${tensor.dtype}`);
  };
  check("weight", (inputs * bits) / 32, (dtype) => dtype === "uint32");
  check("scales", inputs / groupSize, scaleType);
  if (mode === "affine") check("biases", inputs / groupSize, mx.isFloating);
  if (parts.global_scale) checkGlobalScale(parts.global_scale, shape, mode, wrong);
}

/** Of experts in nvfp4 alone: one number for each. */
function checkGlobalScale(
  { shape, dtype }: Tensor,
  weight: readonly number[],
  mode: QuantizationMode,
  wrong: (problem: string) => never,
): void {
  if (weight.length !== 3 || mode !== "nvfp4") wrong("has a global_scale, which only experts in nvfp4 have");
  if (shape.length !== 1 || shape[0] !== weight[0]) {
    wrong(`has global_scale (${shape.join(", ")}), but its ${weight[0]} experts need (${weight[0]})`);
  }
  if (dtype !== "float32") wrong(`has global_scale of ${dtype}, but it must be float32`);
}

/** @throws UserError for a tensor of integers where the model computes with numbers, or the other way round */
export function checkDtypes(model: Module, weights: ReadonlyMap<string, Tensor>, where: Whereabouts): void {
  for (const [name, { dtype: expected }] of model.namedParameters()) {
    const dtype = weights.get(name)?.dtype;
    if (dtype === undefined) continue;
    if (mx.isFloating(expected) ? mx.isFloating(dtype) : dtype === expected) continue;
    throw new UserError(
      `the tensor ${name} (${where(name)}) is ${dtype}, but ${mx.isFloating(expected) ? "the model has floating point there" : `must be ${expected}`}`,
      { hint: "Take the model's original weights, or a version quantized for MLX." },
    );
  }
}

/** Of larger tensors so many numbers are looked at, from rows all over it: damage is rarely in one number alone. */
const looked = 2 ** 16;

/**
 * Looks for NaN in the weights: the model would answer with one token for ever.
 * @throws UserError that names the first tensor with one
 */
export function checkNumbers(model: Module, where: Whereabouts): void {
  const found = mx.scope(() => {
    const floating = model.namedParameters().filter(([, tensor]) => mx.isFloating(tensor.dtype) && tensor.size > 0);
    const bad = floating.map(([, tensor]) => mx.isnan(sample(tensor)).any());
    mx.eval(bad);
    return floating.find((_, i) => bad[i]!.item());
  });
  if (!found) return;
  throw new UserError(`the tensor ${found[0]} (${where(found[0])}) holds NaN: no answer can be computed with it`, {
    hint: "Download the model again, or make it anew from the original.",
  });
}

function sample(tensor: Tensor): Tensor {
  if (tensor.size <= looked) return tensor;
  const width = tensor.dim(-1);
  const rows = tensor.reshape(-1, width);
  const step = Math.max(1, Math.ceil(tensor.size / looked));
  return rows.at(mx.slice(undefined, undefined, step));
}
