/**
 * One rank of shard.test.ts: divides each tiny model of the parity suite among the ranks, and prints how far its logits
 * and tokens are from the fixture's; with adapters, from those of the whole model with the same ones, which a pool may load
 * into the divided model.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from "../../src/mlx";
import { architectureOf, type LanguageModel, pipelineModel } from "../../src/models";
import { fuseProjections, holdTransposes, isQuantizable, type Module, quantize, shardModel } from "../../src/nn";
import { AdapterPool } from "../../src/tune/adapter-pool";
import { fuseAdapters } from "../../src/tune/fuse";
import { linearToLora } from "../../src/tune/linear-to-lora";
import { WholeLayers } from "../../src/tune/whole-layers";
import { randomAdapter } from "../adapter";
import { decode, row } from "../parity/decode";
import { fixture, float32 } from "../parity/fixtures";
import { type FormulaModel, formulaModel } from "../parity/formula-model";
import { report, resultsOf } from "./rank-end";

interface Fixture extends FormulaModel {
  prompt: number[];
  columns: number;
  prefill: { logits: string; last: string };
  float32: { greedy: number[] };
  affine4: { logits: string; greedy: number[] };
}

export interface Comparison {
  /** Greatest distance of a logit, beside its own size where that is more than one. */
  off: number;
  greedy: boolean;
  /** Bytes of the weights on this rank, as a share of all. */
  share: number;
}

const [, , form, ...names] = process.argv;
const isAdapted = ["lora", "dora", "fused"].includes(form!);
const isPooled = form === "pooled" || form === "pooled4";
const group = mx.distributed.init({ strict: true });

const quantization = {
  groupSize: 32,
  bits: 4,
  predicate: (_: string, layer: Module) => isQuantizable(layer) && layer.weight.dim(-1) % 32 === 0,
};

const bytesOf = (model: Module) => model.namedParameters().reduce((sum, [, { nbytes }]) => sum + nbytes, 0);

/** The same on all ranks. What a fresh adapter adds is nothing. */
function adapt(model: LanguageModel): void {
  mx.random.seed(11);
  linearToLora(model, -1, { rank: 4, scale: 2, dropout: 0, dora: form === "dora" });
  const learnt = model.namedParameters().filter(([path]) => path.endsWith("lora_b"));
  model.update(learnt.map(([path, { shape }]) => [path, mx.random.normal({ shape, scale: 0.05 })]));
  mx.eval(model.parameters());
  if (form === "fused") fuseAdapters(model);
}

/** An adapter that a pool takes: the same on all ranks. */
const savedAdapter = (model: LanguageModel) =>
  randomAdapter(mkdtempSync(join(tmpdir(), "mlxlm-shard-")), model, { rank: 4, seed: 11, spread: 0.03 });

const logitsOf = (model: LanguageModel, { prompt, columns }: Fixture) =>
  mx.scope(() =>
    model
      .forward(row(prompt))
      .at(mx.ellipsis, mx.slice(undefined, undefined, columns))
      .toArray(),
  ) as Float32Array;

const split = (model: LanguageModel) => (form === "pipeline" ? pipelineModel(model, group) : shardModel(model, group));

/** Divided, and then given an adapter: what a rank makes of it beside what the whole model makes of it. */
async function comparePooled(name: string): Promise<Comparison> {
  const expected = fixture<Fixture>(`models/${name}.json`);
  const { joins } = await architectureOf(expected.config as never);
  const open = async () => {
    const model = await formulaModel(expected);
    if (form === "pooled4") quantize(model, quantization);
    return model;
  };
  const folder = await savedAdapter(await open());
  const made = async (divides: boolean) => {
    const model = await open();
    const whole = new WholeLayers(model);
    if (divides) split(model);
    fuseProjections(model, joins);
    holdTransposes(model);
    const pool = new AdapterPool(model, undefined, whole);
    const adapter = (await pool.load(folder))!;
    const result = pool.reading([adapter], () => ({
      logits: logitsOf(model, expected),
      tokens: decode(model, expected.prompt, expected.float32.greedy.length),
    }));
    const plain = logitsOf(model, expected);
    pool.dispose();
    model.dispose();
    return { ...result, plain, bytes: adapter.nbytes };
  };
  const [alone, ours] = [await made(false), await made(true)];
  rmSync(folder, { recursive: true });
  if (alone.logits.every((value, i) => value === alone.plain[i])) throw new Error("the adapter changes nothing");
  return {
    off: Math.max(farthest(alone.logits, ours.logits), farthest(alone.plain, ours.plain)),
    greedy: ours.tokens.join() === alone.tokens.join(),
    share: ours.bytes / alone.bytes,
  };
}

/** The greatest distance of a logit, beside its own size where that is more than one. */
const farthest = (theirs: Float32Array, ours: Float32Array) =>
  theirs.reduce((most, value, i) => Math.max(most, Math.abs(value - ours[i]!) / Math.max(1, Math.abs(value))), 0);

async function compare(name: string): Promise<Comparison> {
  const expected = fixture<Fixture>(`models/${name}.json`);
  const model = await formulaModel(expected);
  const { joins } = await architectureOf(expected.config as never);
  if (form === "affine4") quantize(model, quantization);
  if (isAdapted) adapt(model);
  const { logits, greedy } = isAdapted
    ? { logits: logitsOf(model, expected), greedy: decode(model, expected.prompt, expected.float32.greedy.length) }
    : form === "affine4"
      ? expected.affine4
      : { ...expected.prefill, ...expected.float32 };
  const whole = bytesOf(model);
  split(model);
  fuseProjections(model, joins);
  holdTransposes(model);
  const ours = logitsOf(model, expected);
  const theirs = typeof logits === "string" ? float32(logits) : logits;
  const off = farthest(theirs, ours);
  const tokens = decode(model, expected.prompt, greedy.length);
  const result = { off, greedy: tokens.join() === greedy.join(), share: bytesOf(model) / whole };
  model.dispose();
  return result;
}

report(await resultsOf(names, isPooled ? comparePooled : compare));
