/** Which layers of a model get an adapter, and which parameters are trained. */
import { parameterCount } from "../convert/quantize-model";
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import {
  BlockEmbedding,
  BlockLinear,
  BlockSwitchLinear,
  Embedding,
  Linear,
  type Module,
  QuantizedEmbedding,
  QuantizedLinear,
  QuantizedSwitchLinear,
  SwitchLinear,
} from "../nn";
import { checkRoom } from "../room";
import { DoraEmbedding, DoraLinear } from "./dora";
import { LoraEmbedding } from "./lora-embedding";
import { LoraLinear, LoraSwitchLinear } from "./lora-linear";
import type { Adapter, LowRankOptions } from "./low-rank";
import { SharedLora, unshared } from "./shared-lora";

export interface AdapterOptions extends LowRankOptions {
  /** Paths of layers within a block, or within the model for those outside of blocks; all of the blocks' unless given. */
  keys?: readonly string[] | null;
  /** Learn the rows' lengths apart. */
  dora?: boolean;
}

/** The kinds of layers that adapters can lie over, packed, in blocks or plain. */
export const linears = [Linear, QuantizedLinear, BlockLinear] as const;
export const switches = [SwitchLinear, QuantizedSwitchLinear, BlockSwitchLinear] as const;
export const embeddings = [Embedding, QuantizedEmbedding, BlockEmbedding] as const;
const adaptable = [...linears, ...switches, ...embeddings];

export const isOf = <K extends readonly (abstract new (...args: never[]) => Module)[]>(
  layer: Module,
  kinds: K,
): layer is InstanceType<K[number]> => kinds.some((kind) => layer instanceof kind);

/** Modules in the order in which mlx.nn walks them, so that a seed gives each adapter Python's numbers. */
function walk(root: Module): [string, Module][] {
  const found: [string, Module][] = [];
  const stack: [string, Module][] = [["", root]];
  for (let entry = stack.pop(); entry; entry = stack.pop()) {
    found.push(entry);
    const [path, module] = entry;
    // What adapters share stands for the layer below it.
    if (module instanceof SharedLora) continue;
    for (const [name, child] of module.children()) stack.push([path === "" ? name : `${path}.${name}`, child]);
  }
  return found;
}

/** The last `count` blocks; all where it is not positive or more than there are. */
export function lastBlocks(model: LanguageModel, count: number): readonly Module[] {
  return count > 0 ? model.layers.slice(-count) : model.layers;
}

/**
 * Puts adapters in place of layers of the last `numLayers` blocks (all where that is 0 or less), and of layers outside
 * of blocks that `keys` name. The layers live on inside their adapters. Returns how many there are.
 * @throws UserError where a key names something that has no adapter, or no layer at all is named
 */
export function linearToLora(model: LanguageModel, numLayers: number, options: AdapterOptions): number {
  const keys = new Set(options.keys ?? defaultKeys(model));
  let count = 0;
  const adaptBelow = (root: Module) => {
    const named = walk(root).filter(([path]) => keys.has(path));
    // All before any is put in its place: an adapter's own layers are no candidates.
    for (const [path, module] of named.map(([path, module]) => [path, adapterOf(path, module, options)] as const)) {
      root.replace(path, module);
      count += 1;
    }
  };
  for (const block of lastBlocks(model, numLayers)) adaptBelow(block);
  adaptBelow(model);
  if (count > 0) return count;
  throw new UserError(`no layer of the model is named by the adapter's keys: ${[...keys].join(", ")}`, {
    code: ExitCode.usage,
    hint: "Keys are paths within a block, such as self_attn.q_proj, or within the model, such as lm_head.",
  });
}

/** Paths within a block of the layers that get an adapter unless others are named. */
export function defaultKeys(model: LanguageModel): string[] {
  return model.layers.flatMap((block) => walk(block).flatMap(([path, module]) => (isAdaptable(module) ? [path] : [])));
}

const isAdaptable = (module: Module) => adaptable.some((kind) => unshared(module) instanceof kind);

/** A layer that can have an adapter. */
export interface AdaptableLayer {
  /** Its path in the model. */
  path: string;
  /** Its path within its block; the same as in the model outside of blocks. */
  key: string;
  /** Without what stands in for it. */
  layer: Module;
}

/** The layers that can have adapters: of each block, and of the model as a whole. */
export interface AdaptableLayers {
  blocks: readonly (readonly AdaptableLayer[])[];
  all: readonly AdaptableLayer[];
}

export function adaptableLayers(model: LanguageModel): AdaptableLayers {
  const paths = new Map(model.namedModules().map(([path, module]) => [module, path]));
  const within = (root: Module) =>
    walk(root).flatMap(([key, module]) =>
      isAdaptable(module) ? [{ path: paths.get(module)!, key, layer: unshared(module) }] : [],
    );
  return { blocks: model.layers.map(within), all: within(model) };
}

/**
 * The layers to which LoRA adapters of these settings belong, by their paths in the model: those that `linearToLora`
 * would put adapters in place of.
 */
export function layersToAdapt(
  { blocks, all }: AdaptableLayers,
  numLayers: number,
  keys: readonly string[] = blocks.flatMap((block) => block.map(({ key }) => key)),
): Map<string, AdaptableLayer> {
  const wanted = new Set(keys);
  const roots = [...(numLayers > 0 ? blocks.slice(-numLayers) : blocks), all];
  return new Map(roots.flat().flatMap((one) => (wanted.has(one.key) ? [[one.path, one] as const] : [])));
}

function adapterOf(path: string, layer: Module, options: AdapterOptions): Adapter {
  const { dora = false } = options;
  if (isOf(layer, linears)) {
    return dora ? new DoraLinear(layer, options) : new LoraLinear(layer, options);
  }
  if (!dora) {
    if (isOf(layer, switches)) return new LoraSwitchLinear(layer, options);
    if (isOf(layer, embeddings)) return new LoraEmbedding(layer, options);
  } else if (layer instanceof Embedding) return new DoraEmbedding(layer, options);
  // The bundler numbers classes of the same name.
  const kind = layer.constructor.name.replace(/\d+$/, "");
  throw new UserError(`${path || "the model"} is a ${kind}, which cannot have a ${dora ? "DoRA" : "LoRA"} adapter`, {
    code: ExitCode.usage,
    hint:
      dora && adaptable.some((known) => layer instanceof known)
        ? "Train with --fine-tune-type lora, or leave the layer out of lora_parameters.keys."
        : "Name linear layers or embeddings in lora_parameters.keys.",
  });
}

/**
 * Makes the blocks' own parameters trainable, of the last `numLayers` (all where that is 0 or less); with `embeddings`
 * those outside of blocks too: embeddings, the last norm, the head.
 * @throws UserError where one of them is packed, and so has no gradient
 */
export function unfreezeBlocks(model: LanguageModel, numLayers: number, { embeddings = false } = {}): void {
  const blocks = lastBlocks(model, numLayers);
  const chosen = embeddings ? [model] : blocks;
  if (chosen.some((module) => module.namedModules().some(([, inner]) => "packing" in inner))) {
    throw new UserError("a quantized model cannot be fine-tuned in full: packed weights have no gradient", {
      code: ExitCode.usage,
      hint: "Train an adapter (--fine-tune-type lora), or unpack the model first: mlxlm convert --dequantize",
    });
  }
  for (const module of chosen) module.unfreeze();
  if (embeddings) for (const block of model.layers) if (!blocks.includes(block)) block.freeze();
}

/** What each trained parameter is held as: itself, its gradient, and two moments of the usual optimizers. */
const copiesInTraining = 4;

/**
 * Adapters that were made and not evaluated, held against the memory.
 * @throws UserError (exit code 5) for a rank for which there is not enough
 */
export function checkAdapterRoom(model: Module, rank: number, available = mx.availableMemory()): void {
  const bytes = trainableParameters(model).reduce((sum, [, { nbytes }]) => sum + nbytes, 0);
  const hint = "Take a lower rank (4 to 64 are usual), or fewer layers: --num-layers.";
  checkRoom(copiesInTraining * bytes, available, `training adapters of rank ${rank}`, hint);
}

/** Trainable parameters by path. */
export function trainableParameters(model: Module): [string, mx.Tensor][] {
  return mx.treeFlatten(model.trainableParameters());
}

/** "Trainable parameters: 0.109% (0.655M/596.050M)", as mlx-lm prints it: the whole is counted without adapters. */
export function trainableLine(model: Module): string {
  const total = parameterCount(model) / 1e6;
  const trained = trainableParameters(model).reduce((sum, [, { size }]) => sum + size, 0) / 1e6;
  const share = ((trained * 100) / total).toFixed(3);
  return `Trainable parameters: ${share}% (${trained.toFixed(3)}M/${total.toFixed(3)}M)`;
}
