/**
 * One rank of shard.test.ts: divides each tiny model of the parity suite among the ranks, and prints how far its logits
 * and tokens are from the fixture's; with adapters, from those of the whole model with the same ones.
 */

import * as mx from "../../src/mlx";
import { architectureOf, type LanguageModel, pipelineModel } from "../../src/models";
import { fuseProjections, holdTransposes, isQuantizable, type Module, quantize, shardModel } from "../../src/nn";
import { fuseAdapters } from "../../src/tune/fuse";
import { linearToLora } from "../../src/tune/linear-to-lora";
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

const logitsOf = (model: LanguageModel, { prompt, columns }: Fixture) =>
  mx.scope(() =>
    model
      .forward(row(prompt))
      .at(mx.ellipsis, mx.slice(undefined, undefined, columns))
      .toArray(),
  ) as Float32Array;

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
  if (form === "pipeline") pipelineModel(model, group);
  else shardModel(model, group);
  fuseProjections(model, joins);
  holdTransposes(model);
  const ours = logitsOf(model, expected);
  const theirs = typeof logits === "string" ? float32(logits) : logits;
  const off = theirs.reduce(
    (most, value, i) => Math.max(most, Math.abs(value - ours[i]!) / Math.max(1, Math.abs(value))),
    0,
  );
  const tokens = decode(model, expected.prompt, greedy.length);
  const result = { off, greedy: tokens.join() === greedy.join(), share: bytesOf(model) / whole };
  model.dispose();
  return result;
}

report(await resultsOf(names, compare));
