/** One row's scores from what the model answered. */
import { UserError } from "../../errors";
import { str, toValue } from "../../text/template-values";
import { exactMatch, type Metric } from "./metrics";
import { PythonRegex } from "./python-regex";
import type { Likelihood } from "./request";

/** By name of metric; what it holds is for the metric's aggregation. */
export type Scores = Record<string, unknown>;

const has = (metrics: readonly Metric[], name: string) => metrics.some((metric) => metric.name === name);

function only(metrics: readonly Metric[], scores: Scores): Scores {
  return Object.fromEntries(Object.entries(scores).filter(([name]) => has(metrics, name)));
}

export function scoreLikelihood([logLikelihood, isGreedy]: Likelihood, metrics: readonly Metric[]): Scores {
  return only(metrics, { perplexity: logLikelihood, acc: isGreedy ? 1 : 0 });
}

const spaces = new PythonRegex("\\s+", "a word count");

/** Words are what stands between whitespace, empty ones at the ends too. */
export function scoreRolling(logLikelihood: number, text: string, metrics: readonly Metric[]): Scores {
  const words = spaces.split(text).length;
  const bytes = Buffer.byteLength(text);
  return only(metrics, {
    word_perplexity: [logLikelihood, words],
    byte_perplexity: [logLikelihood, bytes],
    bits_per_byte: [logLikelihood, bytes],
  });
}

/** The place of the largest number, the first of several; what is no number counts as larger. */
function argmax(values: readonly number[]): number {
  const unknown = values.findIndex(Number.isNaN);
  return unknown >= 0 ? unknown : values.indexOf(Math.max(...values));
}

function softmax(values: readonly number[]): number[] {
  const most = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - most));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/** Where a gold answer is none of the choices. */
const nowhere = -100;

function placeOf(gold: unknown, choices: readonly string[]): number {
  if (typeof gold === "string") return choices.includes(gold) ? choices.indexOf(gold) : nowhere;
  const index = Number(gold);
  return Number.isInteger(index) && index < choices.length ? index : nowhere;
}

export interface ChoiceQuestion {
  choices: readonly string[];
  /** The right choice by place or text, or a list of them. */
  gold: unknown;
  /** The task's rows have several right choices. */
  hasManyTargets: boolean;
}

/** @param answers of the choices, and behind them, for mutual information, of the choices without their question */
export function scoreChoices(
  answers: readonly Likelihood[],
  { choices, gold, hasManyTargets }: ChoiceQuestion,
  metrics: readonly Metric[],
): Scores {
  const likelihoods = answers.slice(0, choices.length).map(([value]) => value);
  const greedy = answers.map(([, isGreedy]) => isGreedy);
  const best = argmax(likelihoods);
  const bestNormed = argmax(likelihoods.map((value, i) => value / [...choices[i]!].length));
  const bestByBytes = argmax(likelihoods.map((value, i) => value / Buffer.byteLength(choices[i]!)));
  const golds = (Array.isArray(gold) ? gold : [gold]).map((one) => placeOf(one, choices));
  const isRight = (place: number) => (hasManyTargets || !Array.isArray(gold) ? Number(golds.includes(place)) : 0);
  const place = hasManyTargets ? golds : golds[0]!;
  const scores: Scores = {
    acc: isRight(best),
    f1: [place, best],
    mcc: [place, best],
    acc_norm: isRight(bestNormed),
    acc_bytes: isRight(bestByBytes),
    exact_match: Number(golds.some((one) => one !== nowhere && greedy.at(one))),
    brier_score: [place, softmax(likelihoods)],
  };
  if (has(metrics, "acc_mutual_info")) {
    const alone = answers.slice(choices.length).map(([value]) => value);
    const gains = likelihoods.map((value, i) => value - alone[i]!);
    scores.acc_mutual_info = Number(argmax(gains) === golds[0]);
  }
  return only(metrics, scores);
}

/** Metrics that only all rows together have. */
const ofCorpora = new Set(["bleu", "chrf", "chrf++"]);

/**
 * @param result a text, or what filters made of several
 * @param gold a text, or a list where any is right
 */
export function scoreText(
  result: unknown,
  gold: unknown,
  hasManyTargets: boolean,
  metrics: readonly Metric[],
  owner: string,
): Scores {
  const scores: Scores = {};
  for (const { name, options } of metrics) {
    if (name === "bypass") scores.bypass = null;
    else if (ofCorpora.has(name)) scores[name] = [gold, result];
    else if (name !== "exact_match") {
      throw new UserError(`${owner}: the metric "${name}" does not score texts`, {
        hint: `For generate_until, mlxlm knows exact_match, ${[...ofCorpora].join(", ")}.`,
      });
    } else if (hasManyTargets) {
      const golds = Array.isArray(gold) ? gold : [gold];
      scores.exact_match =
        exactMatch(
          golds.map(() => result),
          golds,
          options,
        ) > 0
          ? 1
          : 0;
    } else {
      const predictions = Array.isArray(result) ? result : [result];
      const reference = Array.isArray(result) || typeof gold === "string" ? gold : str(toValue(gold));
      scores.exact_match = exactMatch(
        predictions,
        predictions.map(() => reference),
        options,
      );
    }
  }
  return scores;
}
