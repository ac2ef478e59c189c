/** How a task reads a row: question, right answer, choices. */
import { choiceField, type Field, questionField, targetField, textField } from "./fields";
import type { TaskConfig } from "./task-config";
import type { Doc } from "./task-template";

/** How to read a row as a question: the task's own way, or that of its examples. */
export interface Reading {
  question: Field;
  target: Field;
  choices: ((doc: Doc) => string[]) | null;
  genPrefix: (doc: Doc) => string;
  targetDelimiter: string;
  fewshotDelimiter: string;
}

/** @throws UserError for a key that cannot be read */
export async function readingOf(
  keys: TaskConfig,
  { doc_to_choice: taskChoices }: TaskConfig,
  columns: ReadonlySet<string>,
  owner: string,
): Promise<Reading> {
  const options = (key: string) => ({ owner: `${owner}: ${key}`, columns, hasChoices: taskChoices !== undefined });
  const {
    doc_to_choice: choices,
    target_delimiter: targetDelimiter = " ",
    fewshot_delimiter: fewshotDelimiter = "\n\n",
  } = keys;
  return {
    question: await questionField(keys.doc_to_text ?? "", options("doc_to_text")),
    target: await targetField(keys.doc_to_target ?? "", options("doc_to_target")),
    choices: choices === undefined ? null : await choiceField(choices, options("doc_to_choice")),
    genPrefix: await textField(keys.gen_prefix, options("gen_prefix")),
    targetDelimiter,
    fewshotDelimiter,
  };
}
