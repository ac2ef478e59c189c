/** Metrics: how one row is scored, and how its scores become a figure. */
import { ExitCode, UserError } from "../../errors";
import { nearest } from "../../nearest";
import { type Aggregation, aggregationNamed, aggregationNames } from "./aggregate";
import { portOf } from "./ports";
import type { Aggregate } from "./ports/port";
import { PythonRegex } from "./python-regex";
import type { OutputType, TaskConfig } from "./task-config";
import { PythonFunction } from "./task-yaml";

export interface Metric {
  name: string;
  aggregation: Aggregation;
  higherIsBetter: boolean;
  /** What is written beside it in the task's file. */
  options: Record<string, unknown>;
}

/** The metrics that are known, with the aggregation that they have where a task names none. */
const known: Record<string, [aggregation: string, higherIsBetter: boolean]> = {
  acc: ["mean", true],
  acc_norm: ["mean", true],
  acc_mutual_info: ["mean", true],
  acc_bytes: ["mean", true],
  brier_score: ["brier_score", false],
  exact_match: ["mean", true],
  perplexity: ["perplexity", false],
  word_perplexity: ["weighted_perplexity", false],
  byte_perplexity: ["weighted_perplexity", false],
  bits_per_byte: ["bits_per_byte", false],
  bypass: ["bypass", true],
  bleu: ["bleu", true],
  chrf: ["chrf", true],
  "chrf++": ["chrf++", true],
  mcc: ["matthews_corrcoef", true],
  f1: ["f1", true],
};

/** Those of a task that names none. */
const defaults: Record<OutputType, readonly string[]> = {
  loglikelihood: ["perplexity", "acc"],
  loglikelihood_rolling: ["word_perplexity", "byte_perplexity", "bits_per_byte"],
  multiple_choice: ["acc", "acc_norm"],
  generate_until: ["exact_match"],
};

/** What a metric's entry says about itself; all else goes to its function. */
const ownKeys = new Set(["metric", "aggregation", "higher_is_better", "hf_evaluate"]);

/** @throws UserError for a metric or an aggregation that is not known */
export async function metricsOf(
  { metric_list, process_results }: TaskConfig,
  type: OutputType,
  owner: string,
): Promise<Metric[]> {
  const entries = metric_list ?? defaults[type].map((metric) => ({ metric }) as Record<string, unknown>);
  return Promise.all(entries.map((entry) => metricOf(entry, process_results !== undefined, owner)));
}

async function metricOf(entry: Record<string, unknown>, isFree: boolean, owner: string): Promise<Metric> {
  const { metric, aggregation, higher_is_better: better } = entry;
  if (metric instanceof PythonFunction) {
    throw new UserError(`${owner}: the metric ${metric} is Python`, {
      code: ExitCode.notFound,
      hint: "mlxlm runs no Python. Take another task.",
    });
  }
  const name = String(metric);
  const own = Object.hasOwn(known, name) ? known[name]! : undefined;
  if (!own && !isFree) {
    const [similar] = nearest(name, Object.keys(known), 1);
    throw new UserError(`${owner}: metric_list: there is no metric "${name}"`, {
      hint: similar ? `Did you mean ${similar}?` : `There are ${Object.keys(known).join(", ")}.`,
    });
  }
  const options = Object.fromEntries(Object.entries(entry).filter(([key]) => !ownKeys.has(key)));
  return {
    name,
    aggregation: await aggregationOf(aggregation ?? own?.[0] ?? "mean", owner),
    higherIsBetter: typeof better === "boolean" ? better : (own?.[1] ?? true),
    options,
  };
}

async function aggregationOf(given: unknown, owner: string): Promise<Aggregation> {
  if (given instanceof PythonFunction) {
    const call = (await portOf(given, `${owner}: an aggregation`)) as Aggregate;
    const over = (items: readonly unknown[]) => (chosen: Uint32Array) => call(Array.from(chosen, (i) => items[i]));
    return { name: given.name, over, stderr: null };
  }
  const aggregation = aggregationNamed(String(given));
  if (aggregation) return aggregation;
  const [similar] = nearest(String(given), aggregationNames, 1);
  throw new UserError(`${owner}: metric_list: there is no aggregation "${given}"`, {
    hint: similar ? `Did you mean ${similar}?` : `There are ${aggregationNames.join(", ")}.`,
  });
}

/** string.punctuation */
const punctuation = /[!-/:-@[-`{-~]/g;

/** The share of pairs that are equal, once what does not matter is taken out. */
export function exactMatch(
  predictions: readonly unknown[],
  references: readonly unknown[],
  options: Record<string, unknown>,
): number {
  const ignored = [options.regexes_to_ignore ?? []]
    .flat()
    .map((one) => new PythonRegex(String(one), "regexes_to_ignore"));
  const plain = (value: unknown) => {
    if (typeof value !== "string") return value;
    let text = ignored.reduce((rest, pattern) => pattern.sub("", rest), value);
    if (options.ignore_case) text = text.toLowerCase();
    if (options.ignore_punctuation) text = text.replace(punctuation, "");
    return options.ignore_numbers ? text.replace(/[0-9]/g, "") : text;
  };
  const equal = predictions.filter((prediction, i) => plain(prediction) === plain(references[i]));
  return equal.length / predictions.length;
}
