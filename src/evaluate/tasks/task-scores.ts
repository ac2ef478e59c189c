/** From a model's answers about a row to the row's scores. */
import { guarded } from "./fields";
import type { Likelihood } from "./request";
import { type Scores, scoreChoices, scoreLikelihood, scoreRolling, scoreText } from "./score";
import { checkText, goldText, type TaskParts } from "./task-parts";
import type { Doc } from "./task-template";

/** A row's scores from its answers, which filters have been through. @throws UserError for a row that does not fit */
export function scoresOf(parts: TaskParts, doc: Doc, answers: readonly unknown[]): Scores {
  const { own, metrics, processResults, owner, type, hasManyInputs, hasManyTargets } = parts;
  if (processResults) return guarded(`${owner}: process_results`, () => processResults(doc.row, answers));
  switch (type) {
    case "loglikelihood":
      return scoreLikelihood(answers[0] as Likelihood, metrics);
    case "loglikelihood_rolling":
      return scoreRolling(answers[0] as number, checkText(own.target(doc), "doc_to_target", owner), metrics);
    case "multiple_choice": {
      const gold = hasManyInputs ? own.question(doc) : own.target(doc);
      const question = { choices: own.choices!(doc), gold, hasManyTargets };
      return scoreChoices(answers as Likelihood[], question, metrics);
    }
    case "generate_until": {
      const gold = own.choices ? own.choices(doc).at(Number(own.target(doc))) : goldText(parts, doc);
      return scoreText(answers[0], gold, hasManyTargets, metrics, owner);
    }
  }
}
