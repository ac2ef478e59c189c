/** Masks of the tokens that grammars allow, for the rows of a step. */
import { ExitCode, UserError } from "../errors";
import { concatenate, defaultDevice, grammar, type Tensor } from "../mlx";
import { dropsNothing } from "../sample";
import type { Constraint } from "../sample/grammar/constraint";
import type { Chooser } from "./sampling-step";

export interface StepMask {
  /** Bits for `maskLogits`; null where every token may follow in every row. */
  bits: Tensor | null;
  /** For each row, whether its answer is over: nothing may follow. */
  isOver: boolean[];
  /** What is wrong with a row whose answer has to go on, and no token of the vocabulary does. */
  errors: (UserError | null)[];
}

/** Which tokens may follow in each row. */
export function stepMask(constraints: readonly (Constraint | null | undefined)[], vocabularySize: number): StepMask {
  const rows = constraints.map((constraint) => constraint?.row() ?? null);
  if (rows.every((row) => row === null)) return { bits: null, isOver: rows.map(() => false), errors: [] };
  const mask = grammar.maskOf(
    rows.map((row) => row ?? { matcher: null }),
    vocabularySize,
  );
  const isOver = mask.choices.map((choices) => choices === "none");
  const errors = isOver.map((over, row) => (over && !constraints[row]!.isComplete ? noToken() : null));
  return { bits: mask.bits, isOver, errors };
}

/** The mask of one answer. @throws UserError where it has to go on, and no token of the vocabulary does */
export function loneMask(constraint: Constraint, vocabularySize: number): StepMask {
  const mask = stepMask([constraint], vocabularySize);
  if (!mask.errors[0]) return mask;
  mask.bits?.dispose();
  throw mask.errors[0];
}

/**
 * Whether a token is chosen among all first, and among those that the grammar allows only where it is not one of them.
 * Most tokens are, and a mask costs milliseconds where the grammar counts characters. What is chosen is the same for
 * greedy choice, and as likely for samplers that drop nothing: a token has its own probability, and its share of what
 * is refused. On a GPU the mask is made while the device works, so there is nothing to gain.
 */
export const choosesFirst = ({ sampler, logitsProcessors }: Chooser, wantsLogprobs = false): boolean =>
  defaultDevice() === "cpu" && !wantsLogprobs && logitsProcessors.length === 0 && dropsNothing(sampler);

/** The first of proposed tokens, as far as the grammar allows them; the constraint stays where it is. */
export function allowed(constraint: Constraint | null | undefined, proposed: readonly number[]): readonly number[] {
  if (!constraint) return proposed;
  const refused = proposed.findIndex((token) => !constraint.accept(token));
  const count = refused < 0 ? proposed.length : refused;
  constraint.rollback(count);
  return proposed.slice(0, count);
}

/** The masks before and behind each of `proposed`, which are allowed, (proposed + 1, W); the constraint stays where it is. */
export function maskAlong(constraint: Constraint, proposed: readonly number[], vocabularySize: number): Tensor {
  const rows = [null, ...proposed].map((token) => {
    if (token !== null) acceptChosen(constraint, token);
    return grammar.maskOf([constraint.row() ?? { matcher: null }], vocabularySize).bits;
  });
  constraint.rollback(proposed.length);
  return concatenate(rows, { axis: 0 });
}

/** Whether nothing may follow in an answer. */
export function isOver(constraint: Constraint | null | undefined, vocabularySize: number): boolean {
  if (!constraint?.isComplete) return false;
  const mask = loneMask(constraint, vocabularySize);
  mask.bits?.dispose();
  return mask.isOver[0]!;
}

/** Goes along with a token that was chosen under a mask. */
export function acceptChosen(constraint: Constraint | null | undefined, token: number): void {
  if (!constraint || constraint.accept(token)) return;
  throw new UserError(`token ${token} was chosen, which the grammar does not allow`, {
    hint: "xgrammar allows some too early behind more than 128 repetitions: write ([a-z]{100}){5} for [a-z]{500}.",
  });
}

function noToken(): UserError {
  return new UserError("the answer cannot go on: no token of the model writes what the grammar asks for", {
    code: ExitCode.usage,
    hint: "The model's vocabulary lacks a character of it. Change the grammar, or take another model.",
  });
}
