/** What a task consists of, once its data is open. */
import { UserError } from "../../errors";
import type { CheckedTask } from "./check-task";
import type { FewshotSampler } from "./fewshot";
import type { Reading } from "./reading";
import type { OutputType } from "./task-config";
import type { Doc } from "./task-template";

export interface TaskParts extends CheckedTask {
  type: OutputType;
  docs: readonly Doc[];
  own: Reading;
  examples: Reading;
  sampler: FewshotSampler;
  numFewshot: number;
  description: (doc: Doc) => string;
  /** The first row's question is the place of its answer among several contexts. */
  hasManyInputs: boolean;
  hasManyTargets: boolean;
}

/** @throws UserError for a value that is no text */
export function checkText(value: unknown, key: string, owner: string): string {
  if (typeof value === "string") return value;
  throw new UserError(`${owner}: ${key} gives ${JSON.stringify(value) ?? "nothing"}, where a text is needed`, {
    hint: "Check the column or the template, and doc_to_choice where it is the place of a choice.",
  });
}

/** A row's right answer; numbers as Python prints them: a column of floats with ".0". */
export function goldText({ config, own }: TaskParts, doc: Doc): unknown {
  const target = own.target(doc);
  const { doc_to_target: name } = config;
  return typeof target === "number" && typeof name === "string" && Object.hasOwn(doc.row, name)
    ? doc.text(name)
    : target;
}
