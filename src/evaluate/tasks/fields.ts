/** What a task takes from a row: a column, a template, a constant, a function. */
import { UserError } from "../../errors";
import { str, toValue } from "../../text/template-values";
import { plainLiteral } from "./plain-literal";
import { portOf } from "./ports";
import type { FromDoc } from "./ports/port";
import { type Doc, Template } from "./task-template";
import { PythonFunction } from "./task-yaml";

/** Reads one key of a task off a row. */
export type Field = (doc: Doc) => unknown;

export interface FieldOptions {
  /** File and key, for messages. */
  owner: string;
  /** The names that are columns rather than templates. */
  columns: ReadonlySet<string>;
  /** The task has choices: digits mean one of them. */
  hasChoices: boolean;
}

/** Python's text of any value. */
export const textOf = (value: unknown) => (typeof value === "string" ? value : str(toValue(value)));

async function field(
  given: unknown,
  { owner, columns }: FieldOptions,
  read: (rendered: string) => unknown,
): Promise<Field> {
  if (given instanceof PythonFunction) {
    const port = (await portOf(given, owner)) as FromDoc;
    return (doc) => guarded(owner, () => port(doc.row));
  }
  if (typeof given !== "string") return () => given;
  if (columns.has(given)) return (doc) => doc.row[given];
  const template = Template.of(given, owner);
  return (doc) => read(template.render(doc, owner));
}

/** A function on a row of another shape fails as the task's, not as a defect of ours. */
export function guarded<T>(owner: string, call: () => T): T {
  try {
    return call();
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    throw new UserError(`${owner} failed: ${(cause as Error).message}`, {
      hint: "The data is not what the task was made for.",
      cause,
    });
  }
}

/** Digits as a number; like Python, none with a zero ahead. */
function digits(text: string, { owner, hasChoices }: FieldOptions): string | number {
  if (!hasChoices || !/^\p{Nd}+$/u.test(text)) return text;
  if (/^(?:[1-9][0-9]*|0+)$/.test(text)) return Number(text);
  throw new UserError(`${owner} gives "${text}", which is no number in Python`, { hint: "Repair the template." });
}

export function questionField(given: unknown, options: FieldOptions): Promise<Field> {
  return field(given, options, (text) => digits(text, options));
}

export function targetField(given: unknown, options: FieldOptions): Promise<Field> {
  return field(given, options, (text) => {
    if (text.length >= 2 && text.startsWith("[") && text.endsWith("]")) return plainLiteral(text) ?? text;
    return digits(text, options);
  });
}

/** @throws UserError, when it is called, where the choices are no list of texts */
export async function choiceField(given: unknown, options: FieldOptions): Promise<(doc: Doc) => string[]> {
  const { owner } = options;
  const constant = typeof given === "object" && !(given instanceof PythonFunction) && !Array.isArray(given);
  const read = await field(constant ? Object.values(given ?? {}) : given, options, (text) => {
    const list = plainLiteral(text);
    if (list !== undefined) return list;
    throw new UserError(`${owner} gives ${JSON.stringify(text).slice(0, 80)}, which is no list in Python`, {
      hint: "Write it as a template that prints a list: {{[a, b]}}",
    });
  });
  return (doc) => {
    const choices = read(doc);
    if (Array.isArray(choices) && choices.length > 0 && choices.every((choice) => typeof choice === "string"))
      return choices;
    throw new UserError(`${owner} gives ${JSON.stringify(choices)?.slice(0, 80)}, where a list of texts is needed`, {
      hint: "Check the column or the template.",
    });
  };
}

/** A text or nothing: a column, a template. */
export async function textField(given: string | undefined, options: FieldOptions): Promise<(doc: Doc) => string> {
  if (given === undefined || given === "") return () => "";
  const read = await field(given, options, (text) => text);
  return (doc) => textOf(read(doc) ?? "");
}
