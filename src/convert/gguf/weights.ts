/** The weights of a GGUF file under the checkpoint's names, with the configuration that goes with them. */
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { UserError } from "../../errors";
import type { Dtype, Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { type GgufFacts, ropeFactorsName, stretches, usualBands } from "../../models";
import type { ModelConfig } from "../config";
import { architectureOf } from "./architecture";
import type { GgufHeader } from "./header";
import { readGgufParts } from "./parts";
import { GgufData } from "./tensors";
import type { ElementType } from "./types";

/** A GGUF file, its header checked. */
export interface GgufModel {
  path: string;
  header: GgufHeader;
  config: ModelConfig;
  facts: GgufFacts;
}

/** The file that was opened last: configuration, weights and tokenizer are asked for one after the other. */
let last: { state: string; opened: WeakRef<GgufModel> } | undefined;

/** @throws UserError for a file that is unsound or of a kind that is not supported */
export async function openGguf(path: string): Promise<GgufModel> {
  const facts = await stat(path).catch(() => null);
  const state = JSON.stringify([path, facts?.ino, facts?.size, facts?.mtimeMs]);
  const before = last?.state === state ? last.opened.deref() : undefined;
  if (before) return before;
  const opened = await readGguf(path);
  last = { state, opened: new WeakRef(opened) };
  return opened;
}

async function readGguf(path: string): Promise<GgufModel> {
  const header = await readGgufParts(path);
  const { config, facts } = await architectureOf(header, path);
  const unknown = [...header.tensors.keys()].find(
    (name) => name !== ropeFactorsName && facts.names.path(name) === null,
  );
  if (unknown !== undefined) {
    throw new UserError(`${basename(path)} has the tensor "${unknown}", which mlxlm has no place for`, {
      hint: "Take the model's safetensors.",
    });
  }
  const packed = packedLayers(header, facts);
  const quantization = packed.size > 0 ? { quantization: quantizationOf(packed) } : {};
  return {
    path,
    header,
    config: { ...config, ...(await llama3Scaling(header, config, path)), ...quantization },
    facts,
  };
}

type Affine = NonNullable<ElementType["affine"]>;

/** The layers that stay packed, and how. */
function packedLayers({ tensors }: GgufHeader, { names }: GgufFacts): Map<string, Affine> {
  const packed = new Map<string, Affine>();
  for (const [name, { type }] of tensors) {
    const path = names.path(name)?.[0];
    if (type.affine && path) packed.set(path, type.affine);
  }
  return packed;
}

/** config.json's `quantization`: the most common way, and the layers that have another. */
function quantizationOf(packed: ReadonlyMap<string, Affine>): NonNullable<ModelConfig["quantization"]> {
  const entry = ({ bits, groupSize }: Affine) => ({ group_size: groupSize, bits });
  const key = (how: Affine) => JSON.stringify(entry(how));
  const counts = new Map<string, number>();
  for (const how of packed.values()) counts.set(key(how), (counts.get(key(how)) ?? 0) + 1);
  const most = Math.max(...counts.values());
  // Of ways that are as common, the one with fewer bits.
  const common = [...packed.values()]
    .filter((how) => counts.get(key(how)) === most)
    .reduce((a, b) => (b.bits < a.bits ? b : a));
  const others = [...packed].filter(([, how]) => key(how) !== key(common));
  return { ...entry(common), ...Object.fromEntries(others.map(([path, how]) => [path, entry(how)])) };
}

async function llama3Scaling(header: GgufHeader, config: ModelConfig, path: string): Promise<ModelConfig> {
  const tensor = header.tensors.get(ropeFactorsName);
  if (!tensor) return {};
  const data = new GgufData();
  let factors: number[];
  try {
    factors = mx.scope(() => [...(data.read(tensor).weight.astype("float32").toArray() as Float32Array)]);
  } finally {
    data.close();
  }
  const factor = Math.max(...factors);
  const scaling = { factor, ...usualBands };
  const headDim = config.head_dim as number;
  // A file may claim any width of a head.
  const expected = headDim === 2 * factors.length ? stretches(headDim, config.rope_theta as number, scaling) : [];
  const isUsual =
    factors.length === expected.length && factors.every((value, i) => Math.abs(value - expected[i]!) <= 1e-3 * factor);
  if (!isUsual) {
    throw new UserError(
      `${basename(path)} stretches the rotation by ${ropeFactorsName} in a way that is not Llama 3's`,
      {
        hint: "Take the model's safetensors.",
      },
    );
  }
  return factor === 1 ? {} : { rope_scaling: { rope_type: "llama3", ...scaling } };
}

/**
 * The tensors, read from the file and evaluated. All that is not packed takes one dtype: that of the embedding, or
 * float16, which the scales of packed layers have.
 */
export function ggufTensors({ path, header, config, facts }: GgufModel): Map<string, Tensor> {
  const data = new GgufData();
  const dtype = dtypeOf(header);
  const turned = facts.pairedRows?.(config) ?? {};
  const tensors = new Map<string, Tensor>();
  try {
    for (const [name, tensor] of header.tensors) {
      const place = facts.names.path(name);
      if (!place) continue;
      const [layer, kind] = place;
      const pairs = turned[layer.slice(layer.lastIndexOf(".") + 1)];
      for (const [part, value] of Object.entries(data.read(tensor)) as [string, Tensor][]) {
        const ordered = pairs ? unpair(value, pairs, `${name} of ${basename(path)}`) : value;
        const centered = facts.normOffset && layer.endsWith("norm") ? ordered.subtract(facts.normOffset) : ordered;
        tensors.set(
          `${layer}.${part === "weight" ? kind : part}`,
          mx.isFloating(value.dtype) ? centered.astype(dtype) : centered,
        );
      }
    }
  } finally {
    data.close();
  }
  return tensors;
}

function dtypeOf({ tensors }: GgufHeader): Dtype {
  if ([...tensors.values()].some(({ type }) => type.block > 1)) return "float16";
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
