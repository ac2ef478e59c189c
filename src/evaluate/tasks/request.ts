/** What a task asks a model for, and what comes back. */

export type Request =
  | { type: "loglikelihood"; context: string; continuation: string }
  | { type: "loglikelihood_rolling"; text: string }
  | { type: "generate_until"; context: string; options: Record<string, unknown> };

/** The log-probability of a continuation, and whether it is what greedy decoding gives. */
export type Likelihood = readonly [logLikelihood: number, isGreedy: boolean];

/** A likelihood, a whole text's log-probability, or a text. */
export type Answer = Likelihood | number | string;
