/**
 * How much a layer would give for more bits: the gradient of the divergence from the original, taken at weights in low
 * precision, along what higher precision would change.
 */
import { join } from "node:path";
import { z } from "zod";
import { replaceFile } from "../atomic-file";
import { UserError } from "../errors";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { gatherJson } from "../mlx/group-messages";
import type { LanguageModel } from "../models";
import { type Quantizable, rounded } from "../nn";
import { checkpointBlocks } from "../tune/gradient-checkpoint";
import type { Width } from "./gptq";
import { klDivergence } from "./kl-divergence";
import { quantizableLayers } from "./source-model";
import { checkStopped, resumeHint } from "./stopped";

/** By layer, in the order of the model. */
export type Sensitivities = ReadonlyMap<string, number>;

export interface SensitivityOptions {
  low: Width;
  high: Width;
  /** Compute blocks again in the backward pass, to save memory. */
  gradCheckpoint: boolean;
  /** Folder where sums are kept from batch to batch; null among ranks, which go on together or not at all. */
  work: string | null;
  /** Ranks that have the same model, and run some of the batches each. */
  group?: mx.distributed.Group | null;
  onBatch?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** Rows that run through the model at a time. */
const batchSize = 4;

/**
 * Sensitivities of all layers that can be quantized, a million weights. The gradients of a batch are reduced to a number
 * a layer at once, so no sum of gradients is held.
 * @param rows token ids, of one length
 * @throws UserError where a number is not finite, or the signal ends the work: what is done is saved then
 */
export async function estimateSensitivities(
  model: LanguageModel,
  rows: readonly number[][],
  { low, high, gradCheckpoint, work, group = null, onBatch, signal }: SensitivityOptions,
): Promise<Sensitivities> {
  const layers = quantizableLayers(model);
  const total = Math.ceil(rows.length / batchSize);
  const { done, sums } = work === null ? nothingDone(layers) : await readSums(work, layers);
  const own = new Map<number, number[]>();
  model.freeze();
  for (const [, layer] of layers) layer.unfreeze({ keys: ["weight"] });
  const lowWeights: Tensor[] = [];
  const undo = gradCheckpoint ? checkpointBlocks(model.layers) : () => {};
  try {
    for (const [, { weight }] of layers) {
      checkStopped(signal, resumeHint);
      lowWeights.push(mx.keep(mx.scope(() => rounded(weight, low))));
      mx.eval(lowWeights.at(-1));
    }
    for (let batch = done; batch < total; batch++) {
      checkStopped(signal, group ? undefined : resumeHint);
      if (group && batch % group.size !== group.rank) continue;
      const part = rows.slice(batch * batchSize, (batch + 1) * batchSize);
      const terms = batchTerms(model, part, layers, lowWeights, high);
      if (group) own.set(batch, terms);
      else {
        addTerms(sums, terms);
        if (work !== null) await writeSums(work, batch + 1, sums);
      }
      onBatch?.(batch + 1, total);
      await breathe();
    }
  } finally {
    undo();
    mx.release(lowWeights);
    mx.clearCache();
  }
  if (group) {
    // In the order of the batches, as on one process.
    const all = new Map(gatherJson(group, [...own]).flat());
    for (let batch = 0; batch < total; batch++) addTerms(sums, all.get(batch)!);
  }
  checkFinite(sums);
  return new Map(layers.map(([path, { weight }]) => [path, sums.get(path)! / total / (weight.size / 1e6)]));
}

const nothingDone = (layers: readonly [string, Quantizable][]) => ({
  done: 0,
  sums: new Map(layers.map(([path]) => [path, 0])),
});

/** @param sums in the order of the terms */
function addTerms(sums: Map<string, number>, terms: readonly number[]): void {
  for (const [i, path] of [...sums.keys()].entries()) sums.set(path, sums.get(path)! + terms[i]!);
}

/** Σ gradient · (low − high) of each layer, for one batch. */
function batchTerms(
  model: LanguageModel,
  rows: readonly number[][],
  layers: readonly [string, Quantizable][],
  lowWeights: readonly Tensor[],
  high: Width,
): number[] {
  const tokens = mx.scope(() => mx.array(rows.flat(), "uint32", [rows.length, rows[0]!.length]));
  const targets = mx.scope(() => model.forward(tokens));
  mx.eval(targets);
  const terms = mx.scope(() => {
    const loss = (weights: readonly Tensor[]): Tensor => {
      const own = layers.map(([, { weight }]) => weight);
      const put = (all: readonly Tensor[]) => {
        for (const [i, [, layer]] of layers.entries()) layer.update([["weight", all[i]!]]);
      };
      mx.keep(own);
      put(weights);
      try {
        return klDivergence(model.forward(tokens), targets).mean();
      } finally {
        put(own);
        mx.release(own);
      }
    };
    const [, gradients] = mx.valueAndGrad(loss)([...lowWeights]) as [Tensor, Tensor[]];
    return mx.stack(
      layers.map(([, { weight }], i) => {
        const change = lowWeights[i]!.subtract(rounded(weight, high));
        return gradients[i]!.astype("float32").multiply(change).sum();
      }),
    );
  });
  mx.eval(terms);
  const numbers = terms.toList() as number[];
  for (const tensor of [tokens, targets, terms]) tensor.dispose();
  mx.clearCache();
  return numbers;
}

const Sums = z.object({ batches: z.int().nonnegative(), sums: z.record(z.string(), z.number()) });

const sumsFile = (work: string) => join(work, "sums.json");

/** @throws UserError where a sum is no number */
function checkFinite(sums: ReadonlyMap<string, number>): void {
  const broken = [...sums].find(([, sum]) => !Number.isFinite(sum));
  if (!broken) return;
  throw new UserError(`${broken[0]}: its gradient on the calibration data is not finite`, {
    hint: "Take other data: --data-path. Or convert the model to float32 first.",
  });
}

async function writeSums(work: string, batches: number, sums: ReadonlyMap<string, number>): Promise<void> {
  checkFinite(sums);
  const text = JSON.stringify({ batches, sums: Object.fromEntries(sums) } satisfies z.infer<typeof Sums>);
  await replaceFile(sumsFile(work), async (path) => void (await Bun.write(path, text)));
}

/** How many batches are done, and the sums by then. */
async function readSums(
  work: string,
  layers: readonly [string, Quantizable][],
): Promise<{ done: number; sums: Map<string, number> }> {
  const file = Bun.file(sumsFile(work));
  if (!(await file.exists())) return nothingDone(layers);
  const parsed = Sums.safeParse(await file.json().catch(() => null));
  if (!parsed.success || layers.some(([path]) => parsed.data.sums[path] === undefined)) {
    throw new UserError(`${sumsFile(work)} does not hold this model's sums`, {
      hint: `Delete ${work} and begin anew.`,
    });
  }
  const { batches, sums } = parsed.data;
  return { done: batches, sums: new Map(layers.map(([path]) => [path, sums[path]!])) };
}
