/** What the parameters of a checkpoint are made of, in a GGUF file. */
import { basename } from "node:path";
import { UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import {
  changeOf,
  divided,
  type GgufFacts,
  type MergedTensors,
  type Place,
  stretchNames,
  TensorNames,
} from "../../models";
import type { ModelConfig } from "../config";
import type { GgufHeader, GgufTensor } from "./header";
import { type ElementType, type Packing, widened } from "./types";

export interface PlacedParameter {
  /** The module's path, and what the parameter is called there. */
  path: string;
  kind: string;
  sources: readonly GgufTensor[];
  /** How it stays packed; undefined where its sources are unpacked. */
  affine: Packing | undefined;
  /** The type whose blocks can be moved to where the parameter has them, without being taken apart. */
  blocks: ElementType | undefined;
  /** The parameter, or its codes, scales, biases or blocks, of those of the sources. */
  make(read: readonly Tensor[]): Tensor;
}

/** @throws UserError for a tensor that the architecture has no place for, or one that comes without its other parts */
export function placed(header: GgufHeader, config: ModelConfig, facts: GgufFacts, path: string): PlacedParameter[] {
  const file = basename(path);
  const { parameters: joined, parts } = joinedParameters(header, config, facts, file);
  const stacked = [
    ...stackedParameters(header, facts.stacked?.(config) ?? {}, file),
    ...mergedParameters(header, facts.merged?.(config) ?? {}),
  ];
  const numbers = [...numbersOf(header, facts.numbers ?? {}, file), ...layerNumbersOf(header, config, facts, file)];
  const parameters: PlacedParameter[] = [...joined, ...stacked, ...numbers];
  for (const { sources } of stacked) parts.add(sources[0]!);
  const unread = { ...facts.idle?.(config), ...facts.constants?.(config) };
  const drafts = firstDraft(header, config);
  for (const [name, tensor] of header.tensors) {
    if (stretchNames.includes(name) || parts.has(tensor) || Object.hasOwn(unread, name)) continue;
    if ((TensorNames.layerOf(name) ?? -1) >= drafts) continue;
    const own = placesOf(name, tensor, config, facts, file);
    if (own.length === 0) {
      throw new UserError(`${file} has the tensor "${name}", which mlxlm has no place for`, {
        hint: "Take the model's safetensors.",
      });
    }
    parameters.push(...own);
  }
  return parameters;
}

/** The number of the first layer behind the model's own, where the file says that it has some: they draft tokens. */
const firstDraft = ({ metadata }: GgufHeader, config: ModelConfig) =>
  metadata.get(`${metadata.get("general.architecture")}.nextn_predict_layers`)
    ? (config.num_hidden_layers as number)
    : Infinity;

function placesOf(
  name: string,
  source: GgufTensor,
  config: ModelConfig,
  facts: GgufFacts,
  file: string,
): PlacedParameter[] {
  const { names, changes, normOffset } = facts;
  const own = placeOfLayer(name, facts.places?.(config) ?? {}) ?? names.places(name);
  const { places, split } =
    own.length > 0
      ? { places: own, split: (x: Tensor) => x.split(own.length, -2) }
      : dividedPlaces(name, source, facts, config);
  return places.map(([path, kind], part) => {
    const change = changeOf(changes?.(config) ?? {}, names, `${path}.${kind}`);
    const isNorm = normOffset !== 0 && path.endsWith("norm");
    return {
      path,
      kind,
      sources: [source],
      // Only layers have packed weights.
      affine: kind === "weight" ? fitting(source.type.affine, change?.columns) : undefined,
      blocks: kind === "weight" ? movable(source.type, change?.columns) : undefined,
      make([whole]) {
        const x = places.length === 1 ? whole! : split(whole!)[part]!;
        if (change?.rows) needRows(x, change.rows, `${name} of ${file}`);
        if (change) return change.read(x);
        return isNorm ? x.subtract(normOffset) : x;
      },
    };
  });
}

/** Where a tensor belongs that only some layers have there. */
function placeOfLayer(name: string, places: Readonly<Record<string, string>>): Place[] | undefined {
  const [tensor, kind] = divided(name);
  return Object.hasOwn(places, tensor) ? [[places[tensor]!, kind]] : undefined;
}

/** Where the parts of a tensor belong that the checkpoint has as several, and how they are parted; none of any other. */
function dividedPlaces(
  name: string,
  source: GgufTensor,
  { names, divided }: GgufFacts,
  config: ModelConfig,
): { places: Place[]; split: (x: Tensor) => Tensor[] } {
  const [, layer, own, kind] = /^blk\.(\d+)\.([a-z0-9_]+)\.(weight|bias)$/.exec(name) ?? [];
  const parts = own === undefined ? {} : (divided?.(config) ?? {});
  const { places, rows } = Object.hasOwn(parts, own ?? "") ? parts[own!]! : { places: [], rows: [] };
  const ends = rows.map((_, i) => rows.slice(0, i + 1).reduce((sum, count) => sum + count, 0));
  if (ends.at(-1) !== source.shape[0]) return { places: [], split: () => [] };
  return {
    places: places.map((place): Place => [names.inLayer(layer!, place), kind!]),
    split: (x) => x.split(ends.slice(0, -1), 0),
  };
}

/** The packing of a tensor, if its groups may be moved with the columns. */
const fitting = (affine: Packing | undefined, columns = 0) =>
  affine && columns % affine.groupSize === 0 ? affine : undefined;

/** The same of blocks. */
const movable = (type: ElementType, columns = 0) =>
  type.block > 1 && !type.hasFactor && columns % type.block === 0 ? type : undefined;

function needRows(x: Tensor, heads: number, name: string): void {
  const rows = x.dim(0);
  if (rows % (2 * heads) === 0) return;
  throw new UserError(`${name} has ${rows} rows for ${heads} heads`, {
    hint: "Take another GGUF file of the model.",
  });
}

function joinedParameters(
  { tensors }: GgufHeader,
  config: ModelConfig,
  { names, joined }: GgufFacts,
  file: string,
): { parameters: PlacedParameter[]; parts: Set<GgufTensor> } {
  const found: PlacedParameter[] = [];
  const used = new Set<GgufTensor>();
  for (const [own, how] of Object.entries(joined?.(config) ?? {})) {
    for (let layer = 0; layer < (config.num_hidden_layers as number); layer++) {
      const all = how.parts.map((part) => `blk.${layer}.${part}.weight`);
      const there = all.filter((name) => tensors.has(name));
      if (there.length === 0) continue;
      if (there.length < all.length) {
        const missing = all.find((name) => !tensors.has(name));
        throw new UserError(`${file} has ${there[0]}, but not ${missing}`, {
          hint: "Take another GGUF file of the model.",
        });
      }
      const parts = all.map((name) => tensors.get(name)!);
      for (const part of parts) used.add(part);
      const { sources, affine, blocks } = how.movesRows ? joinable(parts) : { sources: parts };
      found.push({ path: names.inLayer(layer, own), kind: "weight", sources, affine, blocks, make: how.join });
    }
  }
  return { parameters: found, parts: used };
}

/** What of joined tensors stays packed. */
interface Joinable {
  sources: readonly GgufTensor[];
  affine?: Packing;
  blocks?: ElementType;
}

/** Tensors whose rows are joined: of one type as they are, of several in the widest of their packings, which loses nothing. */
function joinable(sources: readonly GgufTensor[]): Joinable {
  const [type, ...others] = new Set(sources.map(({ type }) => type));
  if (others.length === 0) return { sources, affine: type!.affine, blocks: movable(type!) };
  const packings = [type!, ...others].map(({ affine }) => affine);
  const groupSize = packings[0]?.groupSize;
  if (packings.some((one) => !one || one.mode || one.groupSize !== groupSize)) return { sources };
  const affine = { bits: Math.max(...packings.map((one) => one!.bits)), groupSize: groupSize! };
  return { sources: sources.map((source) => ({ ...source, type: widened(source.type, affine.bits) })), affine };
}

/** Parameters that the file has as metadata. */
function numbersOf({ metadata }: GgufHeader, numbers: Readonly<Record<string, string>>, file: string) {
  return Object.entries(numbers).map(([key, parameter]): PlacedParameter => {
    const value = metadata.get(`${metadata.get("general.architecture")}.${key}`);
    if (typeof value !== "number") {
      throw new UserError(`${file} has no number "${key}"`, { hint: "Take another GGUF file of the model." });
    }
    return ofNumber(parameter, value);
  });
}

/** The same of each layer. */
function layerNumbersOf(
  { metadata }: GgufHeader,
  config: ModelConfig,
  { names, layerNumbers }: GgufFacts,
  file: string,
) {
  const layers = config.num_hidden_layers as number;
  return Object.entries(layerNumbers ?? {}).flatMap(([key, own]) => {
    const values = [metadata.get(key) ?? []].flat();
    if (values.length !== layers || values.some((value) => typeof value !== "number")) {
      throw new UserError(`${file} has no list "${key}" of ${layers} numbers`, {
        hint: "Take another GGUF file of the model.",
      });
    }
    return values.map((value, i) => ofNumber(names.inLayer(i, own), value as number));
  });
}

function ofNumber(parameter: string, value: number): PlacedParameter {
  const [path, kind] = divided(parameter);
  return { path, kind, sources: [], affine: undefined, blocks: undefined, make: () => mx.array([value], "float32") };
}

/** The parameters that tensors are made of. */
const mergedParameters = ({ tensors }: GgufHeader, merged: MergedTensors): PlacedParameter[] =>
  Object.entries(merged).flatMap(([name, { parameters, part }]) => {
    const source = tensors.get(name);
    if (!source) return [];
    return parameters.map((parameter, index): PlacedParameter => {
      const [path, kind] = divided(parameter);
      const make = ([whole]: readonly Tensor[]) => part(whole!)[index]!;
      return { path, kind, sources: [source], affine: undefined, blocks: undefined, make };
    });
  });

/** The parts of tensors that the model has one by one. */
function stackedParameters(
  { tensors }: GgufHeader,
  stacked: Readonly<Record<string, readonly string[]>>,
  file: string,
): PlacedParameter[] {
  return Object.entries(stacked).flatMap(([name, parts]) => {
    const source = tensors.get(name);
    if (!source) return [];
    if (source.shape[0] !== parts.length) {
      throw new UserError(`${name} of ${file} has ${source.shape[0]} parts, not ${parts.length}`, {
        hint: "Take another GGUF file of the model.",
      });
    }
    return parts.map((part, index): PlacedParameter => {
      const [path, kind] = divided(part);
      return {
        ...{ path, kind },
        sources: [source],
        affine: undefined,
        blocks: undefined,
        make: ([whole]) => whole!.split(parts.length, 0)[index]!.squeeze(0),
      };
    });
  });
}
