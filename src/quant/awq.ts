/**
 * Activation-aware weight quantization. Block by block: factors that shift difficulty from weights to what comes before
 * them, then limits on weights, both searched on what the block does to calibration data. Lin et al. 2023,
 * arXiv:2306.00978.
 */
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type AwqFacts, architecture, type LanguageModel, modelTypesWith, type ScaleGroup } from "../models";
import { nearest } from "../nearest";
import {
  type Cache,
  type DecoderLayer,
  type Mask,
  type Module,
  type Packing,
  type Quantizable,
  type QuantizationConfig,
  quantize,
  rounded,
} from "../nn";
import type { RowShare } from "./across-ranks";
import {
  applyScales,
  isPackable,
  meanSquaredError,
  type Packable,
  searchClip,
  searchScales,
  withWeights,
} from "./awq-search";
import { blockInputs, blockOutput, LayerInputs, runInBatches } from "./layer-inputs";
import { type BlockLoss, isBlockSaved, loadBlock, saveBlock } from "./saved-blocks";
import { checkGroups, quantizableLayers } from "./source-model";

export interface AwqOptions {
  plan: AwqFacts;
  how: Packing;
  /** Of the embedding and the head. */
  embedding: Packing;
  grid: number;
  /** Folder of blocks that are done. */
  folder?: string;
  /** Called as a block ends; `resumed` where it was done before. */
  onBlock?: (done: number, total: number, loss: BlockLoss, resumed: boolean) => void;
  /** Called with each group's factors (K), in the order of the plan. */
  onScales?: (scales: Tensor) => void;
  /** Called as each search within a block ends. */
  onSearch?: (done: number, total: number) => void;
  /** Where other ranks have other rows of the data. */
  share?: RowShare | null;
  signal?: AbortSignal;
}

/** @throws UserError for a model type of which AWQ knows nothing */
export async function awqFacts(modelType: unknown): Promise<AwqFacts> {
  const facts = typeof modelType === "string" ? (await architecture(modelType)).awq : undefined;
  if (facts) return facts;
  const known = await modelTypesWith("awq");
  const [similar] = typeof modelType === "string" ? nearest(modelType, known, 1) : [];
  throw new UserError(`AWQ does not know models of type ${JSON.stringify(modelType) ?? "unknown"}`, {
    code: ExitCode.notFound,
    hint: `It knows ${known.join(", ")}.${similar ? ` Did you mean ${similar}?` : ""} For others: mlxlm gptq or mlxlm dwq`,
  });
}

const child = (module: Module, path: string): Module | undefined =>
  path.split(".").reduce<unknown>((at, name) => (at as Record<string, unknown> | undefined)?.[name], module) as
    | Module
    | undefined;

/** Paths of the embedding and, where there is one, the head. */
function endsOf(model: LanguageModel, { inner }: AwqFacts): string[] {
  const root = inner === undefined ? "" : `${inner}.`;
  const names = [
    ...["model.embed_tokens", "model.word_embeddings", "backbone.embeddings", "lm_head"],
    ...["transformer.wte", "model.transformer.wte", "model.transformer.ff_out"],
  ];
  return names.map((name) => `${root}${name}`).filter((path) => child(model, path) !== undefined);
}

const packables = (block: Module): [string, Packable][] =>
  block.namedModules().filter((entry): entry is [string, Packable] => isPackable(entry[1]));

/** @throws UserError where a layer's inputs do not divide into groups */
export function checkAwq(
  model: LanguageModel,
  { plan, how, embedding }: Pick<AwqOptions, "plan" | "how" | "embedding">,
): void {
  const ends = endsOf(model, plan).map((path) => [path, child(model, path) as Quantizable] as const);
  checkGroups(ends, embedding.groupSize, "--embed-group-size");
  for (const [i, block] of model.layers.entries()) {
    const layers = quantizableLayers(block).map(([path, layer]) => [`layers.${i}.${path}`, layer] as const);
    checkGroups(layers, how.groupSize, "--group-size");
  }
}

/**
 * Quantizes the model in place by what it does to rows of token ids (N, T), this rank's. Original weights are read, used and let go
 * block by block. Returns what each block lost.
 * @throws UserError where the signal ends the work
 */
export async function awqQuantize(model: LanguageModel, tokens: Tensor, options: AwqOptions): Promise<BlockLoss[]> {
  const { plan, how, embedding, folder, onBlock } = options;
  const ends = endsOf(model, plan);
  const quantizeEnd = (end: string | undefined) => quantize(model, { ...embedding, predicate: (path) => path === end });
  quantizeEnd(ends[0]);
  const losses: BlockLoss[] = [];
  let { x, masks } = await blockInputs(model, tokens);
  try {
    for (const [index, block] of model.layers.entries()) {
      const mask = masks[index]!;
      const isDone = folder !== undefined && isBlockSaved(folder, index);
      const stopIfAsked = () => stopIfAborted(options, index, model.layers.length);
      stopIfAsked();
      const { output, loss } = isDone
        ? await resumeBlock(folder, index, block, { x, mask, how })
        : await quantizeBlock(block, x, mask, { ...options, stopIfAsked });
      mx.release(x);
      x = output;
      if (folder !== undefined && !isDone) await saveBlock(folder, index, block, loss);
      losses.push(loss);
      mx.clearCache();
      onBlock?.(index + 1, model.layers.length, loss, isDone);
    }
  } finally {
    mx.release([x, masks]);
  }
  quantizeEnd(ends[1]);
  return losses;
}

function stopIfAborted({ signal, folder }: AwqOptions, done: number, total: number): void {
  if (!signal?.aborted) return;
  throw new UserError(`stopped after ${done} of ${total} blocks`, {
    code: ExitCode.interrupted,
    hint: folder === undefined ? undefined : "They are saved. Go on with --resume.",
  });
}

interface BlockResult {
  /** What the original block makes of its input: the next one's; kept. */
  output: Tensor;
  loss: BlockLoss;
}

/** A block that was done before, after its original has run once more. */
async function resumeBlock(
  folder: string,
  index: number,
  block: DecoderLayer<Cache>,
  { x, mask, how }: { x: Tensor; mask: Mask; how: Packing },
): Promise<BlockResult> {
  const output = await runInBatches({ x, indices: null }, (rows) => blockOutput(block, rows, mask));
  return { output, loss: await loadBlock(folder, index, block, how) };
}

async function quantizeBlock(
  block: DecoderLayer<Cache>,
  x: Tensor,
  mask: Mask,
  options: AwqOptions & { stopIfAsked: () => void },
): Promise<BlockResult> {
  const { how, plan, onSearch, stopIfAsked, share } = options;
  const layers = packables(block).map(([, layer]) => layer);
  const groups = plan.groups.filter((group) => appliesTo(group, block));
  const clipped = packables(block).filter(([path]) => plan.noClip.every((name) => !path.includes(name)));
  const searches = groups.length + clipped.length;
  let done = 0;

  const originals = mx.keep(block.namedParameters());
  const { output, inputs } = await LayerInputs.of(block, layers, x, mask);
  try {
    const lossNow = () =>
      withWeights(
        layers,
        (weight) => rounded(weight, how),
        () =>
          meanSquaredError({ x, indices: null }, (rows) => blockOutput(block, rows, mask), { exact: output, share }),
      );
    const loss = { plain: await lossNow(), searched: 0 };
    for (const group of groups) {
      stopIfAsked();
      await scaleGroup(block, group, inputs, mask, options);
      onSearch?.(++done, searches);
    }
    for (const [, layer] of clipped) {
      stopIfAsked();
      const weight = await searchClip(layer, inputs.get(layer), options);
      layer.update([["weight", weight]]);
      mx.release(weight);
      onSearch?.(++done, searches);
    }
    loss.searched = await lossNow();
    if (loss.searched > loss.plain) block.update(originals);
    quantize(block, how);
    mx.eval(block.parameters());
    return { output, loss };
  } catch (error) {
    mx.release(output);
    throw error;
  } finally {
    inputs.dispose();
    mx.release(originals);
  }
}

function appliesTo({ before, layers }: ScaleGroup, block: Module): boolean {
  return child(block, before) !== undefined && layers.some((path) => child(block, path) !== undefined);
}

/** Searches the group's factors and moves them. */
async function scaleGroup(
  block: Module,
  { before, layers: paths, part }: ScaleGroup,
  inputs: LayerInputs,
  mask: Mask,
  { how, grid, onScales, share }: AwqOptions,
): Promise<void> {
  const layers = paths.flatMap((path) => child(block, path) ?? []);
  const captured = inputs.smallest(layers);
  const judge = (part === undefined ? layers[0] : child(block, part)) as Module & {
    forward(x: Tensor, second?: unknown): Tensor;
  };
  // A part gets the mask, a layer of experts their indices.
  const run = (x: Tensor, indices: Tensor | null) => judge.forward(x, part === undefined ? indices : mask);
  const scales = await searchScales({ layers, captured, run, how, grid, share });
  try {
    onScales?.(scales);
    applyScales(child(block, before)!, layers, scales);
    inputs.divide(layers, scales);
  } finally {
    mx.release(scales);
  }
}

/** config.json's entries: of every layer, as mlx-lm writes them. */
export function awqConfig(model: LanguageModel, { groupSize, bits }: Packing): QuantizationConfig {
  const config: QuantizationConfig = { group_size: groupSize, bits };
  for (const [path, module] of model.namedModules()) {
    if (path === "" || module.children().length > 0) continue;
    const { packing } = module as Module & { packing?: Packing };
    config[path] = packing ? { group_size: packing.groupSize, bits: packing.bits } : false;
  }
  return config;
}
