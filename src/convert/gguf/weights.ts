/** The weights of a GGUF file under the checkpoint's names, with the configuration that goes with them. */
import { basename } from "node:path";
import { UserError } from "../../errors";
import type { Dtype, Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { ModelConfig } from "../config";
import { architectureOf, pathOf } from "./architecture";
import { type GgufHeader, readGgufHeader } from "./header";
import { GgufData, groupSize, type Loaded } from "./tensors";

/** Llama 3's stretched frequencies, for each pair of features. */
const ropeFactors = "rope_freqs.weight";

/** A GGUF file, its header checked. */
export interface GgufModel {
  path: string;
  header: GgufHeader;
  config: ModelConfig;
  pairedHeads: Readonly<Record<string, number>>;
}

/** Whether a checkpoint is such a file, by its name. */
export const isGguf = (path: string): boolean => /\.gguf$/i.test(path);

/** @throws UserError for a file that is unsound or of a kind that is not supported */
export async function openGguf(path: string): Promise<GgufModel> {
  const header = await readGgufHeader(path);
  const { config, pairedHeads } = architectureOf(header, path);
  const unknown = [...header.tensors.keys()].find((name) => name !== ropeFactors && pathOf(name) === null);
  if (unknown !== undefined) {
    throw new UserError(`${basename(path)} has the tensor "${unknown}", which mlxlm has no place for`, {
      hint: "Take the model's safetensors.",
    });
  }
  const packed = packedLayers(header);
  const quantization = packed.size > 0 ? { quantization: quantizationOf(packed) } : {};
  return {
    path,
    header,
    config: { ...config, ...(await llama3Scaling(header, config, path)), ...quantization },
    pairedHeads,
  };
}

/** Bits of each layer that is packed. */
function packedLayers({ tensors }: GgufHeader): Map<string, number> {
  const packed = new Map<string, number>();
  for (const [name, { type }] of tensors) {
    const bits = { Q4_0: 4, Q4_1: 4, Q8_0: 8 }[type.name];
    const path = pathOf(name)?.[0];
    if (bits && path) packed.set(path, bits);
  }
  return packed;
}

/** config.json's `quantization`: the most common width, and the layers that have another. */
function quantizationOf(packed: ReadonlyMap<string, number>): NonNullable<ModelConfig["quantization"]> {
  const widths = [...packed.values()];
  const count = (bits: number) => widths.filter((width) => width === bits).length;
  const bits = count(8) > count(4) ? 8 : 4;
  const others = [...packed].filter(([, width]) => width !== bits);
  const entries = others.map(([path, width]) => [path, { group_size: groupSize, bits: width }]);
  return { group_size: groupSize, bits, ...Object.fromEntries(entries) };
}

/** The usual numbers of Llama 3.1 and later; files hold what they come to, not the numbers. */
const llama3 = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };

async function llama3Scaling(header: GgufHeader, config: ModelConfig, path: string): Promise<ModelConfig> {
  const tensor = header.tensors.get(ropeFactors);
  if (!tensor) return {};
  const data = new GgufData(path);
  let factors: number[];
  try {
    factors = mx.scope(() => [...(data.read(tensor).weight.astype("float32").toArray() as Float32Array)]);
  } finally {
    data.close();
  }
  const factor = Math.max(...factors);
  const base = config.rope_theta as number;
  const expected = factors.map((_, i) => stretch(base ** ((2 * i) / (config.head_dim as number)), factor));
  if (factors.some((value, i) => Math.abs(value - expected[i]!) > 1e-3 * factor)) {
    throw new UserError(`${basename(path)} stretches the rotation by ${ropeFactors} in a way that is not Llama 3's`, {
      hint: "Take the model's safetensors.",
    });
  }
  return factor === 1 ? {} : { rope_scaling: { rope_type: "llama3", factor, ...llama3 } };
}

/** How many times longer a wave of base^(2i / dims) becomes. */
function stretch(power: number, factor: number): number {
  const { low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: context } = llama3;
  const wavelength = 2 * Math.PI * power;
  if (wavelength < context / high) return 1;
  if (wavelength > context / low) return factor;
  const smooth = (context / wavelength - low) / (high - low);
  return 1 / ((1 - smooth) / factor + smooth);
}

/**
 * The tensors, read from the file and evaluated. All that is not packed takes one dtype: that of the embedding, or
 * float16, which the scales of packed layers have.
 */
export function ggufTensors({ path, header, pairedHeads }: GgufModel): Map<string, Tensor> {
  const data = new GgufData(path);
  const dtype = dtypeOf(header);
  const tensors = new Map<string, Tensor>();
  try {
    for (const [name, tensor] of header.tensors) {
      const place = pathOf(name);
      if (!place) continue;
      const [layer, kind] = place;
      const heads = pairedHeads[layer.slice(layer.lastIndexOf(".") + 1)];
      for (const [part, value] of Object.entries(data.read(tensor) as Loaded)) {
        if (!(value instanceof mx.Tensor)) continue;
        const ordered = heads ? unpair(value, heads, `${name} of ${basename(path)}`) : value;
        tensors.set(
          `${layer}.${part === "weight" ? kind : part}`,
          mx.isFloating(value.dtype) ? ordered.astype(dtype) : ordered,
        );
      }
    }
  } finally {
    data.close();
  }
  return tensors;
}

function dtypeOf({ tensors }: GgufHeader): Dtype {
  const names = new Set([...tensors.values()].map(({ type }) => type.name));
  if ([...names].some((name) => name.startsWith("Q"))) return "float16";
  const dtypes: Readonly<Record<string, Dtype>> = { F16: "float16", BF16: "bfloat16" };
  return dtypes[tensors.get("token_embd.weight")!.type.name] ?? "float32";
}

/** Rows of each head from pairs (0, D/2, 1, D/2 + 1, …) to halves. */
function unpair(x: Tensor, heads: number, name: string): Tensor {
  const rows = x.dim(0);
  if (rows % (2 * heads) !== 0) {
    throw new UserError(`${name} has ${rows} rows for ${heads} heads`, {
      hint: "Take another GGUF file of the model.",
    });
  }
  const rest = x.shape.slice(1);
  return x
    .reshape(heads, rows / heads / 2, 2, ...rest)
    .swapaxes(1, 2)
    .reshape(rows, ...rest);
}
