/**
 * Weights in eight-bit floating point (E4M3) with a scale for each block, as DeepSeek introduced them; they become
 * bfloat16. DeepSeek-AI 2024, arXiv:2412.19437, section 3.3.
 */
import { UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { ForeignFormat, QuantizationSettings } from "./format";

const scaleSuffix = "_scale_inv";

/** Blocks where the settings say none: the whole weight has one scale, or this. */
const usualBlock: [number, number] = [128, 128];

const again = "Take the model's original weights, or a version quantized for MLX.";

/** Power-of-two scales over 32 × 32 blocks are mxfp8 as they are; all others are unpacked. */
export function fp8(settings: QuantizationSettings, folder: string): ForeignFormat {
  const block = blockOf(settings, folder);
  if (settings.scale_fmt === "ue8m0" && block[0] === 32 && block[1] === 32) {
    return { quantization: { group_size: 32, bits: 8, mode: "mxfp8" } };
  }
  return { translate: (weights) => unpackAll(weights, block, folder) };
}

function blockOf({ weight_block_size: block }: QuantizationSettings, folder: string): [number, number] {
  if (block === undefined || block === null) return usualBlock;
  const sound = Array.isArray(block) && block.length === 2 && block.every((size) => Number.isInteger(size) && size > 0);
  if (sound) return block as [number, number];
  throw new UserError(
    `config.json of ${folder}: "weight_block_size" is ${JSON.stringify(block)}, but must be two positive integers`,
    { hint: "Download the model again, or repair the file." },
  );
}

/** Scales of activations are left out: they are for hardware that multiplies in eight bits. */
const activationScale = /[._](input_scale|activation_scale)$/;

function unpackAll(weights: Map<string, Tensor>, block: [number, number], folder: string): Map<string, Tensor> {
  const unpacked = new Map<string, Tensor>();
  for (const [name, tensor] of weights) {
    if (name.endsWith(scaleSuffix) || activationScale.test(name)) continue;
    const scale = weights.get(name + scaleSuffix);
    const wrong = (problem: string): never => {
      throw new UserError(`the tensor ${name} of ${folder} ${problem}`, { hint: again });
    };
    if (!scale && tensor.dtype === "uint8") wrong(`has one-byte values without ${name}${scaleSuffix}`);
    unpacked.set(name, scale ? unpackBlocks(tensor, scale, block, wrong) : tensor);
  }
  return unpacked;
}

/**
 * weight (M, N) of E4M3 bytes, scale (⌈M / a⌉, ⌈N / b⌉) or a single one → (M, N) bfloat16. Stacked experts (E, M, N) have
 * one scale each, (E, 1, 1).
 */
function unpackBlocks(
  weight: Tensor,
  scale: Tensor,
  [a, b]: [number, number],
  wrong: (problem: string) => never,
): Tensor {
  if (weight.dtype !== "uint8") wrong(`is ${weight.dtype}, not F8_E4M3, although it has a scale`);
  if (!mx.isFloating(scale.dtype)) wrong(`has a scale of ${scale.dtype}`);
  const values = mx.fromFp8(weight, "bfloat16");
  if (scale.size === 1) return values.multiply(scale.reshape([])).astype("bfloat16");
  const perExpert = [weight.dim(0), 1, 1];
  if (weight.ndim === 3 && scale.ndim === 3 && scale.shape.every((dim, axis) => dim === perExpert[axis])) {
    return values.multiply(scale).astype("bfloat16");
  }
  const [M, N] = weight.shape as [number, number];
  const [down, across] = [Math.ceil(M / a), Math.ceil(N / b)];
  if (weight.ndim !== 2 || scale.ndim !== 2 || scale.dim(0) !== down || scale.dim(1) !== across) {
    const is = `is (${weight.shape.join(", ")}), its scale (${scale.shape.join(", ")})`;
    wrong(`${is}: not one for each block of ${a} × ${b}`);
  }
  const [below, beside] = [down * a - M, across * b - N];
  // Where nothing is added, a part of the weight needs no more of the file than that.
  const whole =
    below + beside === 0
      ? values
      : mx.pad(values, [
          [0, below],
          [0, beside],
        ]);
  return whole
    .reshape(down, a, across, b)
    .multiply(scale.at(mx.slice(), mx.newaxis, mx.slice(), mx.newaxis))
    .reshape(down * a, across * b)
    .at(mx.slice(0, M), mx.slice(0, N))
    .astype("bfloat16");
}
