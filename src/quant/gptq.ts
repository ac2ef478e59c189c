/**
 * GPTQ: every linear layer is rounded so that what it does to calibration data changes least. Frantar et al. 2022,
 * arXiv:2210.17323. Block by block, as far as the model's blocks follow each other; what is no linear layer is rounded to
 * nearest, in more bits.
 */
import type { ModelConfig } from "../convert/config";
import { UserError } from "../errors";
import type { distributed, Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { Linear, type Module, type Quantizable, type QuantizationConfig, quantize, SwitchLinear } from "../nn";
import { BlockWalk, blocksFollow } from "./block-walk";
import { inverseFactor, quantizeColumns } from "./gptq-columns";
import { loadStep, saveStep } from "./saved-steps";
import { type Moments, SecondMoments } from "./second-moments";
import { quantizableLayers } from "./source-model";

/** How layers are packed. */
export interface Width {
  bits: number;
  groupSize: number;
}

export interface GptqOptions extends Width {
  /** Of what is no linear layer: embeddings. */
  fallback: Width;
  /** Folder that finished blocks are saved to, and taken from; null among ranks, which go on together or not at all. */
  work: string | null;
  /** Ranks that have the same model, and run some of the rows each. */
  group?: distributed.Group | null;
  /** In batches and layers. */
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** Rows that run through the model at a time. */
const batchSize = 8;

/** Layers whose moments are measured in one run through the data. */
interface Step {
  layers: [path: string, layer: GptqLayer][];
  /** Which block they are in; "around" the blocks; or all of a "whole" model. */
  place: number | "around" | "whole";
}

type GptqLayer = Linear | SwitchLinear;

/** Other layers that are built on these are not what they were: exactly these two. */
const isGptqLayer = (module: Module): module is GptqLayer =>
  module.constructor === Linear || module.constructor === SwitchLinear;

/** The layers that GPTQ rounds, with their paths. */
export function gptqLayers(model: Module): [string, GptqLayer][] {
  return model.namedModules().filter((entry): entry is [string, GptqLayer] => isGptqLayer(entry[1]));
}

/** The layers that are rounded to nearest, with their paths. */
export function fallbackLayers(model: Module): [string, Quantizable][] {
  return quantizableLayers(model).filter(([, module]) => !isGptqLayer(module));
}

/** config.json's `quantization` for a model that is still in floating point. */
export function gptqConfig(model: Module, { bits, groupSize, fallback }: GptqOptions): QuantizationConfig {
  const own = { bits: fallback.bits, group_size: fallback.groupSize };
  return { bits, group_size: groupSize, ...Object.fromEntries(fallbackLayers(model).map(([path]) => [path, own])) };
}

/**
 * Quantizes the model in place and returns its new configuration.
 * @param rows token ids, of one length
 * @throws UserError where a layer's inputs are not finite, or the signal ends the work: what is done is saved then
 */
export async function gptqQuantize(
  model: LanguageModel,
  config: ModelConfig,
  rows: readonly number[][],
  options: GptqOptions,
): Promise<ModelConfig> {
  const quantization = gptqConfig(model, options);
  const steps = stepsOf(model);
  const { group } = options;
  const own = group ? rows.filter((_, i) => i % group.size === group.rank) : rows;
  const count = Math.ceil(own.length / batchSize);
  const walk = new BlockWalk(
    model,
    Array.from({ length: count }, (_, i) => own.slice(i * batchSize, (i + 1) * batchSize)),
  );
  const total = steps.reduce((sum, { layers }) => sum + count + layers.length, 0);
  let done = 0;
  const advance = (by = 1) => {
    done += by;
    options.onProgress?.(done, total);
  };
  try {
    const { work } = options;
    let saved = work !== null;
    for (const [i, step] of steps.entries()) {
      const paths = step.layers.map(([path]) => path);
      saved &&= await loadStep(work!, i, paths, walk, options);
      if (saved) advance(count + step.layers.length);
      else {
        await quantizeStep(model, walk, step, options, advance);
        if (work !== null) await saveStep(work, i, paths, walk);
      }
    }
  } finally {
    walk.dispose();
  }
  const { bits, groupSize } = options.fallback;
  quantize(model, { bits, groupSize });
  mx.eval(model.parameters());
  return { ...config, quantization, quantization_config: quantization };
}

function stepsOf(model: LanguageModel): Step[] {
  const layers = gptqLayers(model);
  if (!blocksFollow(model)) return [{ layers, place: "whole" }];
  const placeOf = new Map(
    model.layers.flatMap((block, i) => block.namedModules().map(([, module]) => [module, i] as const)),
  );
  const steps: Step[] = model.layers.map((_, i) => ({
    layers: layers.filter(([, layer]) => placeOf.get(layer) === i),
    place: i,
  }));
  const others = layers.filter(([, layer]) => !placeOf.has(layer));
  return others.length > 0 ? [...steps, { layers: others, place: "around" }] : steps;
}

async function quantizeStep(
  model: LanguageModel,
  walk: BlockWalk,
  { layers, place }: Step,
  options: GptqOptions,
  advance: (by?: number) => void,
): Promise<void> {
  const { signal } = options;
  const moments = new SecondMoments(layers.map(([, layer]) => layer));
  try {
    const watch = { onBatch: () => advance(), alongside: () => moments.finishPass(), signal };
    if (place === "whole") await walk.runWhole(watch);
    else if (place === "around") await walk.runAround(watch);
    else await walk.run(place, watch);
    moments.stop();
    if (options.group) moments.sumOver(options.group);

    const pathOf = new Map<Module, string>(layers.map(([path, layer]) => [layer, path]));
    for (const sum of moments.sums) {
      await quantizeTogether(model, sum, pathOf, options);
      advance(sum.layers.length);
    }
    // Layers that no data came to have no errors to weigh.
    const { bits, groupSize } = options;
    quantize(model, { predicate: (_, module) => pathOf.has(module) && { bits, groupSize } });
  } finally {
    moments.dispose();
  }
}

/** Rounds the layers that share an input. Their rows do not touch each other: they are one weight. */
async function quantizeTogether(
  model: LanguageModel,
  { layers, H }: Moments,
  pathOf: ReadonlyMap<Module, string>,
  { bits, groupSize, signal }: GptqOptions,
): Promise<void> {
  const members = layers as GptqLayer[];
  const R = inverseFactor(H);
  if (!R) {
    throw new UserError(`${pathOf.get(members[0]!)}: its inputs on the calibration data are not finite, or all zero`, {
      hint: "Take other data: --data-path. Or convert the model to float32 first.",
    });
  }
  try {
    const { dtype } = members[0]!.weight;
    const W = mx.keep(
      mx.scope(() => mx.concatenate(members.map(({ weight }) => weight.reshape(-1, weight.dim(-1)).astype("float32")))),
    );
    const whole = await quantizeColumns(W, R, { bits, groupSize, dtype, signal }).finally(() => mx.release(W));
    try {
      let row = 0;
      for (const layer of members) {
        const outer = layer.weight.shape.slice(0, -1);
        const end = row + outer.reduce((product, size) => product * size, 1);
        const part = (x: Tensor) => mx.contiguous(x.at(mx.slice(row, end))).reshape(...outer, x.dim(-1));
        const packed = mx.scope(() => {
          const { weight, scales, biases } = whole;
          return layer
            .toQuantized({ bits, groupSize })
            .update({ weight: part(weight), scales: part(scales), biases: part(biases) });
        });
        row = end;
        mx.eval(packed.parameters());
        model.replace(pathOf.get(layer)!, packed);
        layer.dispose();
      }
    } finally {
      mx.release(Object.values(whole));
    }
  } finally {
    mx.release(R);
  }
}
