/** From the scores of single rows to one figure, and how sure it is. */
import { UserError } from "../../errors";
import { breathe } from "../../macrotask";
import { PythonRandom } from "../../mersenne";
import { bleu, chrf, chrfPlus } from "./translation-scores";

/** A figure over chosen items; what can be prepared for many choices is. */
type Figure = (chosen: Uint32Array) => number;

export interface Aggregation {
  name: string;
  over: (items: readonly unknown[]) => Figure;
  /** How its standard error is found; null: it has none. */
  stderr: "closed" | "bootstrap" | null;
  /** How many samples are drawn for it at most. */
  mostDraws?: number;
}

const all = (count: number) => Uint32Array.from({ length: count }, (_, i) => i);

export function aggregate({ over }: Aggregation, items: readonly unknown[]): number {
  return over(items)(all(items.length));
}

/** @throws UserError where an item is no number */
function numbers(items: readonly unknown[], name: string): Float64Array {
  const values = Float64Array.from(items, (item) => (typeof item === "boolean" ? Number(item) : (item as number)));
  if (items.every((item) => typeof item === "number" || typeof item === "boolean")) return values;
  throw new UserError(`the aggregation "${name}" takes numbers, not ${JSON.stringify(items[0])?.slice(0, 40)}`, {
    hint: "Check metric_list: the metric and its aggregation do not fit.",
  });
}

function pairs(items: readonly unknown[], name: string): [Float64Array, Float64Array] {
  const isPair = (item: unknown) => Array.isArray(item) && item.length === 2;
  if (!items.every(isPair)) {
    throw new UserError(`the aggregation "${name}" takes pairs, not ${JSON.stringify(items[0])?.slice(0, 40)}`, {
      hint: "Check metric_list: the metric and its aggregation do not fit.",
    });
  }
  const side = (i: number) =>
    numbers(
      (items as unknown[][]).map((pair) => pair[i]),
      name,
    );
  return [side(0), side(1)];
}

const ofNumbers =
  (name: string, figure: (values: Float64Array, chosen: Uint32Array) => number): Aggregation["over"] =>
  (items) => {
    const values = numbers(items, name);
    return (chosen) => figure(values, chosen);
  };

const ofPairs =
  (name: string, figure: (a: Float64Array, b: Float64Array, chosen: Uint32Array) => number): Aggregation["over"] =>
  (items) => {
    const [a, b] = pairs(items, name);
    return (chosen) => figure(a, b, chosen);
  };

function total(values: Float64Array, chosen: Uint32Array): number {
  let sum = 0;
  for (let i = 0; i < chosen.length; i++) sum += values[chosen[i]!]!;
  return sum;
}

const meanOf = (values: Float64Array, chosen: Uint32Array) => total(values, chosen) / chosen.length;

/** Of texts too: they count by which is which. */
function classes(items: readonly unknown[]): unknown[][] {
  const seen: unknown[] = [];
  const code = (value: unknown) => {
    const key = typeof value === "boolean" ? Number(value) : value;
    return seen.includes(key) ? seen.indexOf(key) : seen.push(key) - 1;
  };
  return (items as unknown[][]).map((pair) => (Array.isArray(pair) ? pair.map(code) : []));
}

/** Of the class 1. */
function f1(golds: Float64Array, predictions: Float64Array, chosen: Uint32Array): number {
  let [hits, others] = [0, 0];
  for (let i = 0; i < chosen.length; i++) {
    const gold = golds[chosen[i]!] === 1;
    const prediction = predictions[chosen[i]!] === 1;
    if (gold && prediction) hits++;
    else if (gold || prediction) others++;
  }
  return hits === 0 ? 0 : (2 * hits) / (2 * hits + others);
}

/** Matthews' correlation for any number of classes. Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006. */
function matthews(golds: Float64Array, predictions: Float64Array, chosen: Uint32Array): number {
  const count = 1 + Math.max(...golds, ...predictions);
  const [actual, predicted] = [new Float64Array(count), new Float64Array(count)];
  let correct = 0;
  for (let i = 0; i < chosen.length; i++) {
    const [gold, prediction] = [golds[chosen[i]!]!, predictions[chosen[i]!]!];
    actual[gold]! += 1;
    predicted[prediction]! += 1;
    if (gold === prediction) correct++;
  }
  const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
  const n = chosen.length;
  const spread = (n * n - dot(predicted, predicted)) * (n * n - dot(actual, actual));
  return spread === 0 ? 0 : (correct * n - dot(actual, predicted)) / Math.sqrt(spread);
}

/** The mean squared distance between probabilities and truth. */
const brier: Aggregation["over"] = (items) => {
  const rows = items as [gold: number, probabilities: number[]][];
  const size = rows[0]?.[1].length;
  if (rows.some(([, probabilities]) => probabilities.length !== size)) {
    throw new UserError("brier_score needs as many choices in every row", { hint: "Take the metric out." });
  }
  const squares = Float64Array.from(rows, ([gold, probabilities]) =>
    probabilities.reduce((sum, p, i) => sum + (p - (i === gold ? 1 : 0)) ** 2, 0),
  );
  return (chosen) => meanOf(squares, chosen);
};

const aggregations: Record<string, Omit<Aggregation, "name">> = {
  bypass: { over: () => () => 999, stderr: null },
  mean: { over: ofNumbers("mean", meanOf), stderr: "closed" },
  nanmean: {
    over: ofNumbers("nanmean", (values, chosen) => {
      const known = chosen.filter((i) => !Number.isNaN(values[i]));
      return known.length === 0 ? Number.NaN : meanOf(values, known);
    }),
    stderr: "bootstrap",
  },
  median: {
    over: ofNumbers(
      "median",
      (values, chosen) => Float64Array.from(chosen, (i) => values[i]!).sort()[chosen.length >> 1]!,
    ),
    stderr: "bootstrap",
  },
  perplexity: {
    over: ofNumbers("perplexity", (values, chosen) => Math.exp(-meanOf(values, chosen))),
    stderr: "bootstrap",
  },
  weighted_perplexity: {
    over: ofPairs("weighted_perplexity", (sums, weights, chosen) =>
      Math.exp(-total(sums, chosen) / total(weights, chosen)),
    ),
    stderr: null,
  },
  bits_per_byte: {
    over: ofPairs(
      "bits_per_byte",
      (sums, weights, chosen) => -(total(sums, chosen) / total(weights, chosen)) / Math.log(2),
    ),
    stderr: null,
  },
  f1: { over: ofPairs("f1", f1), stderr: "bootstrap" },
  matthews_corrcoef: {
    over: (items) => ofPairs("matthews_corrcoef", matthews)(classes(items)),
    stderr: "bootstrap",
  },
  brier_score: { over: brier, stderr: null },
  bleu: { over: bleu, stderr: "bootstrap", mostDraws: 100 },
  chrf: { over: chrf, stderr: "bootstrap", mostDraws: 100 },
  "chrf++": { over: chrfPlus, stderr: "bootstrap", mostDraws: 100 },
};

export const aggregationNames = Object.keys(aggregations);

export function aggregationNamed(name: string): Aggregation | undefined {
  return Object.hasOwn(aggregations, name) ? { name, ...aggregations[name]! } : undefined;
}

/** How many samples are drawn with one random sequence. */
const chunk = 1000;

/**
 * The standard error of a figure: of means by its formula, of others by drawing `iterations` samples of the items, with
 * repetition, as Python draws them.
 * @returns null where it has none
 */
export async function standardError(
  aggregation: Aggregation,
  items: readonly unknown[],
  iterations: number,
): Promise<number | null> {
  if (items.length < 2 || iterations <= 0 || aggregation.stderr === null) return null;
  if (aggregation.stderr === "closed") {
    return deviation(numbers(items, aggregation.name)) / Math.sqrt(items.length);
  }
  const figure = aggregation.over(items);
  const draws = Math.min(iterations, aggregation.mostDraws ?? iterations);
  const size = Math.min(chunk, draws);
  const figures = new Float64Array(Math.floor(draws / size) * size);
  const chosen = new Uint32Array(items.length);
  for (let n = 0; n < figures.length; n += size) {
    const random = new PythonRandom(n / size);
    for (let i = 0; i < size; i++) {
      random.choices(items.length, chosen);
      figures[n + i] = figure(chosen);
      await breathe();
    }
  }
  return deviation(figures);
}

/** Of a sample. */
function deviation(values: Float64Array): number {
  const chosen = all(values.length);
  const mean = meanOf(values, chosen);
  return Math.sqrt(
    total(
      values.map((value) => (value - mean) ** 2),
      chosen,
    ) /
      (values.length - 1),
  );
}

/** Of a group's mean, weighted by the sizes of its tasks. */
export function pooledError(errors: readonly number[], sizes: readonly number[]): number {
  const count = sizes.reduce((sum, size) => sum + size, 0);
  const squares = errors.reduce((sum, error, i) => sum + (sizes[i]! - 1) * error ** 2 * sizes[i]!, 0);
  return Math.sqrt(squares / (count - sizes.length) / count);
}

/** Of a group's mean in which every task counts the same. */
export function unweightedError(errors: readonly number[]): number {
  return Math.sqrt(errors.reduce((sum, error) => sum + error ** 2, 0)) / errors.length;
}
