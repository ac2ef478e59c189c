/** The weights of a GGUF file under the checkpoint's names, with the configuration that goes with them. */
import { stat } from "node:fs/promises";
import type { Dtype, Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { GgufModelType } from "../../models";
import type { ModelConfig } from "../config";
import { architectureOf } from "./architecture";
import type { Unpacked } from "./blocks";
import type { GgufHeader } from "./header";
import { readGgufParts } from "./parts";
import { type PlacedParameter, placed } from "./placed";
import { withScales } from "./scaled";
import { llama3Scaling, smallTensors } from "./stretches";
import { GgufData, mapBlocks } from "./tensors";
import type { ElementType, Packing } from "./types";

/** A GGUF file, its header checked. */
export interface GgufModel extends Pick<GgufModelType, "keepsDtype"> {
  path: string;
  header: GgufHeader;
  config: ModelConfig;
  parameters: readonly PlacedParameter[];
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
  const parts = await readGgufParts(path);
  const small = smallTensors(parts);
  const { config, facts, keepsDtype } = await architectureOf(parts, small, path);
  const { header, experts } = withScales(parts, facts.names, path);
  const parameters = [...placed(header, config, facts, path), ...experts];
  const packed = new Map(parameters.flatMap(({ path, affine }) => (affine ? [[path, affine] as const] : [])));
  const quantization = packed.size > 0 ? { quantization: quantizationOf(packed) } : {};
  return {
    path,
    header,
    config: { ...config, ...(facts.readsFactors ? {} : llama3Scaling(small, config, path)), ...quantization },
    parameters,
    keepsDtype,
  };
}

/** config.json's `quantization`: the most common way, and the layers that have another. */
function quantizationOf(packed: ReadonlyMap<string, Packing>): NonNullable<ModelConfig["quantization"]> {
  const entry = ({ bits, groupSize, mode }: Packing) => ({ group_size: groupSize, bits, ...(mode && { mode }) });
  const key = (how: Packing) => JSON.stringify(entry(how));
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

/**
 * The tensors, read from the file and evaluated. All that is not packed takes one dtype, but for what the architecture
 * keeps: that of the embedding, or float16, which the scales of packed layers have.
 * @param inBlocks layers whose weights stay in the file's blocks, where they lie
 */
export function ggufTensors(
  { header, parameters, keepsDtype }: GgufModel,
  inBlocks: ReadonlyMap<string, ElementType> = new Map(),
): Map<string, Tensor> {
  const data = new GgufData();
  const dtype = dtypeOf(header);
  const tensors = new Map<string, Tensor>();
  try {
    for (const { path, kind, sources, affine, make } of parameters) {
      if (inBlocks.has(path) && kind === "weight") {
        tensors.set(`${path}.weight`, make(sources.map(mapBlocks)));
        continue;
      }
      if (sources.length === 0) {
        const name = path === "" ? kind : `${path}.${kind}`;
        const value = make([]);
        tensors.set(name, keepsDtype?.(name) ? value : value.astype(dtype));
        continue;
      }
      const read = sources.map((source) => (affine ? data.read(source) : { weight: data.readPlain(source) }));
      for (const part of Object.keys(read[0]!) as (keyof Unpacked)[]) {
        const value = make(read.map((unpacked) => unpacked[part]!));
        const own = part === "weight" ? kind : part;
        const name = path === "" ? own : `${path}.${own}`;
        const isCast = mx.isFloating(value.dtype) && kind !== "global_scale" && !keepsDtype?.(name);
        tensors.set(name, isCast ? value.astype(dtype) : value);
      }
    }
  } finally {
    data.close();
  }
  return tensors;
}

/** MLX's form may take so much more memory than the file. */
const mostGrowth = 1.15;

/** Whether MLX's form of a type, with its scales and biases of 16 bits, takes too much memory. */
function growsTooMuch({ affine, bytes, block }: ElementType): boolean {
  const perGroup = affine?.mode ? 8 : 32;
  return affine !== undefined && affine.bits + perGroup / affine.groupSize > mostGrowth * ((bytes * 8) / block);
}

/** Types that are no smaller than MLX's form, whose kernels multiply one row faster all the same. */
const quickBlocks: ReadonlySet<string> = new Set(["Q4_K", "Q5_K"]);

/**
 * The layers whose weights stay in the file's blocks, of those that `accepts` holds for: where MLX's form would take more
 * memory, as of all types whose groups have 16 or that choose from a grid, or more time.
 */
export function blockLayers(
  { parameters }: GgufModel,
  accepts: (path: string) => boolean,
): ReadonlyMap<string, ElementType> {
  const chosen = parameters.filter(
    ({ path, kind, blocks }) =>
      blocks && (growsTooMuch(blocks) || quickBlocks.has(blocks.name)) && kind === "weight" && accepts(path),
  );
  return new Map(chosen.map(({ path, blocks }) => [path, blocks!]));
}

/** The dtype of a file's model. */
export function dtypeOf({ tensors }: GgufHeader): Dtype {
  if ([...tensors.values()].some(({ type }) => type.affine && !type.affine.mode)) return "float16";
  const dtypes: Readonly<Record<string, Dtype>> = { F16: "float16", BF16: "bfloat16" };
  return dtypes[tensors.get("token_embd.weight")!.type.name] ?? "float32";
}
