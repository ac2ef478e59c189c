/** How far bfloat16 takes a tiny model from float32, by kernels of ours and by MLX's own operations. */
import * as mx from "../../src/mlx";
import type { LanguageModel } from "../../src/models";
import { NestedLM } from "../../src/models/nested";
import { intercept, type Module, type Residual } from "../../src/nn";
import { type Choice, chosen, dispose, held, recorded } from "./choices";
import { row } from "./decode";
import { type FormulaModel, formulaModel } from "./formula-model";

/** One pass over a prompt. */
interface Pass {
  /** Hidden states behind each layer. */
  layers: Float32Array[];
  logits: Float32Array;
  choices: Choice[];
}

export interface Drift {
  /** Mean distance of logits from those in float32. */
  logits: number;
  /** Distance of the hidden states behind each layer, by their length. */
  layers: number[];
  /** How many choices differ from those in float32. */
  tipped: number;
}

/** By kernels of ours, and by MLX's own operations. */
export interface Drifts {
  ours: Drift;
  mlx: Drift;
}

const numbers = (x: mx.Tensor) => mx.scope(() => x.astype("float32").flatten().toArray() as Float32Array);

function passOf(model: LanguageModel, prompt: readonly number[], choices?: readonly Choice[]): Pass {
  const { layers } = model instanceof NestedLM ? model.language_model : model;
  const streams: mx.Tensor[] = [];
  const releases = layers.map((layer) =>
    intercept(layer as unknown as Module, (original, args) => {
      const stream = original(...args) as Residual;
      streams.push(mx.keep(stream.value));
      return stream;
    }),
  );
  const forward = () => numbers(model.forward(row(prompt)));
  try {
    // What is held is not made.
    const { result: logits, choices: made } = choices
      ? { result: mx.scope(() => held(choices, forward)), choices: [] }
      : mx.scope(() => recorded(forward));
    return { layers: streams.map(numbers), logits, choices: made };
  } finally {
    for (const release of releases) release();
    for (const stream of streams) mx.release(stream);
  }
}

function driftOf(exact: Pass, other: Pass): Drift {
  const length = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));
  const apart = (a: Float32Array, b: Float32Array) => a.map((value, i) => value - b[i]!);
  const distances = apart(exact.logits, other.logits);
  const differing = exact.choices.map((choice, i) => {
    if (!other.choices[i]) return 0;
    const [a, b] = [chosen(choice), chosen(other.choices[i])];
    return a.filter((row, at) => row !== b[at]).length;
  });
  return {
    logits: distances.reduce((sum, value) => sum + Math.abs(value), 0) / distances.length,
    layers: exact.layers.map((states, i) => length(apart(states, other.layers[i]!)) / length(states)),
    tipped: differing.reduce((sum, count) => sum + count, 0),
  };
}

/** One draw of a model's weights, rounded to bfloat16: with choices of its own, and with those of float32. */
export async function drifts(of: FormulaModel, prompt: readonly number[]): Promise<{ free: Drifts; held: Drifts }> {
  const model = await formulaModel(of, "bfloat16");
  const byMlx = <T>(work: () => T): T => {
    mx.enableCpuKernels(false);
    try {
      return work();
    } finally {
      mx.enableCpuKernels(true);
    }
  };
  const wide = await formulaModel(of, "bfloat16");
  mx.scope(() => wide.update(wide.namedParameters().map(([name, x]) => [name, x.astype("float32")])));
  const exact = byMlx(() => passOf(wide, prompt));
  const passes = {
    free: { ours: passOf(model, prompt), mlx: byMlx(() => passOf(model, prompt)) },
    held: { ours: passOf(model, prompt, exact.choices), mlx: byMlx(() => passOf(model, prompt, exact.choices)) },
  };
  const both = ({ ours, mlx }: { ours: Pass; mlx: Pass }): Drifts => ({
    ours: driftOf(exact, ours),
    mlx: driftOf(exact, mlx),
  });
  const result = { free: both(passes.free), held: both(passes.held) };
  for (const { choices } of [exact, passes.free.ours, passes.free.mlx]) dispose(choices);
  model.dispose();
  wide.dispose();
  return result;
}
