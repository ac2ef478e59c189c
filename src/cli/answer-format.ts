/** The flags that hold answers to a form, which generate and chat have. */
import { ExitCode, UserError } from "../errors";
import { inputText } from "../input-file";
import type { TextFormat } from "../sample/grammar/formats";
import { flag, type Values } from "./flags";
import { fromLead } from "./group";
import { pipedText } from "./piped";

export const answerFormatFlags = {
  jsonSchema: flag.text("answer with JSON that fits this schema: a file, - for stdin, or the schema itself", {
    placeholder: "SCHEMA",
  }),
  regex: flag.text("answer with a text that this regular expression matches as a whole", { placeholder: "PATTERN" }),
  choice: flag.text("answer with one of these texts", { placeholder: "A,B,…" }),
  grammar: flag.path("answer by the rule root of this grammar in EBNF", { placeholder: "FILE" }),
};

type FormatFlags = Partial<Values<typeof answerFormatFlags>>;

/** How large a schema or a grammar may be, in bytes. */
const largest = 1 << 20;

/**
 * The form that the flags ask for, null where they ask for none.
 * @throws UserError (usage) for several at once, a file that is not there, and a form that cannot be held to
 */
export async function answerFormat(flags: FormatFlags): Promise<TextFormat | null> {
  const given = Object.keys(answerFormatFlags).filter((name) => flags[name as keyof FormatFlags] !== undefined);
  if (given.length === 0) return null;
  if (given.length > 1) {
    const names = given.map((name) => `--${name === "jsonSchema" ? "json-schema" : name}`);
    throw usage(`${names.join(" and ")} do not go together`, "Give one of them.");
  }
  const format = await formatOf(flags);
  const { checkFormat } = await import("../sample/grammar/formats");
  checkFormat(format);
  return format;
}

async function formatOf({ jsonSchema, regex, choice, grammar }: FormatFlags): Promise<TextFormat> {
  if (jsonSchema !== undefined) return { type: "json_schema", schema: await schemaOf(jsonSchema) };
  if (regex !== undefined) return { type: "regex", pattern: regex };
  if (choice !== undefined) return { type: "choice", choices: choice.split(",").map((one) => one.trim()) };
  return { type: "grammar", grammar: await fileOf(grammar!, "--grammar") };
}

async function schemaOf(given: string): Promise<unknown> {
  const isInline = /^\s*(?:\{|true\b)/.test(given);
  const text = isInline
    ? given
    : given === "-"
      ? await fromLead(() => pipedText(null, largest * 1000))
      : await fileOf(given, "--json-schema");
  try {
    return JSON.parse(text);
  } catch (cause) {
    const where = isInline ? "--json-schema" : given === "-" ? "stdin" : given;
    throw usage(
      `${where} is no JSON: ${(cause as Error).message}`,
      'A schema is a JSON object, such as {"type": "object"}.',
    );
  }
}

async function fileOf(path: string, name: string): Promise<string> {
  const text = await inputText(path);
  if (text === null) throw usage(`${name}: there is no file ${path}`, "Check the path.");
  if (text.length > largest) throw usage(`${path} is too long: more than ${largest} characters`, "Shorten it.");
  return text;
}

function usage(message: string, hint: string): UserError {
  return new UserError(message, { code: ExitCode.usage, hint });
}
