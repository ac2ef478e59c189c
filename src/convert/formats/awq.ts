/**
 * The four-bit weights of AutoAWQ and of GPTQ in MLX's affine form. Theirs is (q − zero) · scale, with eight values to a
 * word and inputs before outputs; MLX's is q · scale + bias, the same words along the inputs of each output.
 */
import { ExitCode, UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { ForeignFormat, QuantizationSettings } from "./format";

const bits = 4;

/** Values in a word. */
const perWord = 32 / bits;

/** Where in a word the values of neighbouring outputs lie. */
const awqOrder = [0, 4, 1, 5, 2, 6, 3, 7];
const plainOrder = [0, 1, 2, 3, 4, 5, 6, 7];

/** The zero of a layer that says none. */
const middle = 2 ** (bits - 1);

const { groupSizes } = mx.packings.affine;

const originals = "Take the model's original weights, or a version quantized for MLX.";

/** @throws UserError for settings that MLX has no form for */
export function awqOrGptq(settings: QuantizationSettings, folder: string): ForeignFormat {
  const tool = String(settings.quant_method);
  const width = settings.bits ?? settings.w_bit ?? bits;
  if (width !== bits) {
    throw new UserError(`${folder} is quantized by ${tool} to ${JSON.stringify(width)} bits; mlxlm reads ${bits}`, {
      code: ExitCode.notFound,
      hint: originals,
    });
  }
  // The first form of GPTQ's files holds every zero less one.
  const zeroShift = tool === "gptq" && settings.checkpoint_format !== "gptq_v2" ? 1 : 0;
  const groupSize = settings.group_size ?? settings.q_group_size;
  return {
    quantization: { group_size: typeof groupSize === "number" ? groupSize : 128, bits },
    translate: (weights) => repackAll(weights, zeroShift, folder),
  };
}

/** The parts of one quantized layer. */
interface Packed {
  qweight: Tensor;
  /** (groups, outputs) */
  scales: Tensor;
  /** (groups, outputs / 8) */
  qzeros?: Tensor;
}

function repackAll(weights: Map<string, Tensor>, zeroShift: number, folder: string): Map<string, Tensor> {
  const repacked = new Map<string, Tensor>();
  let dtype: mx.Dtype | undefined;
  for (const [name, tensor] of weights) {
    if (/\.(qzeros|g_idx|scales)$/.test(name)) continue;
    if (!name.endsWith(".qweight")) {
      repacked.set(name, tensor);
      continue;
    }
    const path = name.slice(0, -".qweight".length);
    const wrong = (problem: string): never => {
      throw new UserError(`the layer ${path} of ${folder} ${problem}`, { hint: originals });
    };
    const scales = weights.get(`${path}.scales`) ?? wrong("has no scales");
    const packed = { qweight: tensor, scales, qzeros: weights.get(`${path}.qzeros`) };
    const groupSize = checkShapes(packed, wrong);
    const order = weights.get(`${path}.g_idx`);
    if (order && !isInOrder(order, groupSize)) {
      wrong("has its inputs grouped out of order (g_idx, desc_act), which MLX cannot");
    }
    const layer = isAlongInputs(packed) ? repackGptq(packed, zeroShift) : repackAwq(packed);
    for (const [part, value] of Object.entries(layer)) repacked.set(`${path}.${part}`, value);
    dtype = scales.dtype;
  }
  if (!dtype) {
    throw new UserError(`config.json of ${folder} names a quantization, but no tensor is quantized so (*.qweight)`, {
      hint: "Check that config.json and the weights belong together.",
    });
  }
  // One dtype for the whole model: that of the scales.
  for (const [name, tensor] of repacked) if (mx.isFloating(tensor.dtype)) repacked.set(name, tensor.astype(dtype));
  return repacked;
}

/** Whether words run along the inputs, GPTQ's way: one column for each output. */
const isAlongInputs = ({ qweight, scales }: Packed) => qweight.dim(1) === scales.dim(1);

/** Size of the layer's groups. */
function checkShapes(packed: Packed, wrong: (problem: string) => never): number {
  const { qweight, scales, qzeros } = packed;
  if (qweight.ndim !== 2 || scales.ndim !== 2) return wrong("has tensors that are no matrices");
  if (qweight.dtype !== "int32" && qweight.dtype !== "uint32") return wrong(`is packed in ${qweight.dtype}, not int32`);
  if (!mx.isFloating(scales.dtype)) return wrong(`has scales of ${scales.dtype}`);
  const [groups, outputs] = scales.shape as [number, number];
  const inputs = isAlongInputs(packed) ? qweight.dim(0) * perWord : qweight.dim(0);
  const fits = isAlongInputs(packed) || qweight.dim(1) * perWord === outputs;
  if (!fits || outputs % perWord !== 0 || inputs % perWord !== 0 || groups === 0 || inputs % groups !== 0) {
    wrong(`has a qweight (${qweight.shape.join(", ")}) that its scales (${scales.shape.join(", ")}) do not fit`);
  }
  if (qzeros && (qzeros.ndim !== 2 || qzeros.dim(0) !== groups || qzeros.dim(1) * perWord !== outputs)) {
    wrong(`has qzeros (${qzeros.shape.join(", ")}) that its scales (${scales.shape.join(", ")}) do not fit`);
  }
  if (qzeros && qzeros.dtype !== "int32" && qzeros.dtype !== "uint32")
    wrong(`has qzeros of ${qzeros.dtype}, not int32`);
  const groupSize = inputs / groups;
  if (!groupSizes.includes(groupSize)) {
    wrong(`has groups of ${groupSize} inputs; MLX has ${groupSizes.join(", ")}`);
  }
  return groupSize;
}

/** Whether input i is in group ⌊i / groupSize⌋, as it is without act-order. */
function isInOrder(order: Tensor, groupSize: number): boolean {
  return order.toArray().every((group, i) => Number(group) === Math.floor(i / groupSize));
}

/** (R, C) words → (R, 8 C) values */
function unpackWords(words: Tensor, order: readonly number[]): Tensor {
  const shifts = mx.array(
    order.map((place) => place * bits),
    "uint32",
  );
  const values = words.view("uint32").expandDims(-1).rightShift(shifts).bitwiseAnd(15);
  return values.reshape(words.dim(0), words.dim(1) * perWord);
}

/** (R, C) values → (R, C / 8) words, the first value in the lowest bits */
function packWords(values: Tensor): Tensor {
  const shifts = mx.array(
    plainOrder.map((place) => place * bits),
    "uint32",
  );
  const [rows, columns] = values.shape as [number, number];
  return values
    .reshape(rows, columns / perWord, perWord)
    .leftShift(shifts)
    .sum({ axis: -1 });
}

/** MLX's parameters of a layer, from scales and zeros (groups, outputs). */
function affine(weight: Tensor, scales: Tensor, zeros: Tensor | null) {
  const turned = mx.contiguous(scales.T);
  const biases = zeros
    ? zeros.T.astype("float32").negative().multiply(turned)
    : turned.astype("float32").multiply(-middle);
  return { weight, scales: turned, biases: biases.astype(scales.dtype) };
}

function repackAwq({ qweight, scales, qzeros }: Packed) {
  return affine(packWords(unpackWords(qweight, awqOrder).T), scales, qzeros ? unpackWords(qzeros, awqOrder) : null);
}

function repackGptq({ qweight, scales, qzeros }: Packed, zeroShift: number) {
  const zeros = qzeros && unpackWords(qzeros, plainOrder).add(zeroShift).bitwiseAnd(15);
  return affine(mx.contiguous(qweight.view("uint32").T), scales, zeros ?? null);
}
