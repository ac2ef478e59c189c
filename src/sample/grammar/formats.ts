/** The forms that an answer may be held to, as grammars. */
import { ExitCode, UserError } from "../../errors";
import type { Tokenizer } from "../../text/tokenizer";
import type { GrammarText } from "./grammar-text";
import { parsePattern, toEbnf, UnsupportedExpression } from "./regular-expression";
import { checkedSchema, maxLiteral } from "./schema";
import { type ToolsFormat, toolsGrammar } from "./tool-calls";

/** Forms that any model's text can have. */
export type TextFormat =
  | { type: "json_object" }
  | { type: "json_schema"; schema: unknown }
  | { type: "regex"; pattern: string }
  | { type: "choice"; choices: readonly string[] }
  | { type: "grammar"; grammar: string };

export type AnswerFormat = TextFormat | ToolsFormat;

/** Of a schema more than this takes long to compile, and is a mistake more often than not. */
const maxSchema = 256 << 10;

/** Rules that call each other in a row of thousands make a mask take seconds, and nobody can interrupt it. */
const maxRules = 32 << 10;

/** @throws UserError for a form that no grammar holds to */
export function grammarOf(format: AnswerFormat, tokenizer: Tokenizer): GrammarText {
  return format.type === "tools" ? toolsGrammar(format, tokenizer) : checkFormat(format);
}

/** The grammar of a form that does not depend on the model. @see grammarOf */
export function checkFormat(format: TextFormat): GrammarText {
  const grammar = written(format);
  const bytes = Buffer.byteLength(grammar.text);
  const most = grammar.language === "json_schema" ? maxSchema : format.type === "choice" ? maxLiteral : maxRules;
  if (bytes > most) throw usage(`the grammar is too long: ${bytes} bytes of at most ${most}`);
  return grammar;
}

function written(format: TextFormat): GrammarText {
  switch (format.type) {
    case "json_object":
      return schemaGrammar({ type: "object" });
    case "json_schema":
      return schemaGrammar(format.schema);
    case "regex":
      return { language: "ebnf", text: `root ::= ${patternEbnf(format.pattern)}` };
    case "choice":
      return { language: "ebnf", text: `root ::= ${choiceEbnf(format.choices)}` };
    case "grammar":
      return { language: "ebnf", text: format.grammar };
  }
}

function schemaGrammar(schema: unknown): GrammarText {
  return { language: "json_schema", text: JSON.stringify(checkedSchema(schema)) };
}

/** The whole text matches, whether the pattern says so by ^ and $ or not. */
function patternEbnf(pattern: string): string {
  try {
    return toEbnf(parsePattern(pattern).expression);
  } catch (error) {
    if (error instanceof UnsupportedExpression) throw usage(`the pattern cannot be used: ${error.message}`);
    if (error instanceof SyntaxError) throw usage(`the pattern is no regular expression: ${error.message}`);
    throw error;
  }
}

function choiceEbnf(choices: readonly string[]): string {
  if (choices.length === 0) throw usage("there is nothing to choose from");
  return choices.map((choice) => (choice === "" ? '""' : literalEbnf(choice))).join(" | ");
}

/** A text as EBNF. */
export function literalEbnf(text: string): string {
  const escaped = [...text].map((character) => {
    const code = character.codePointAt(0)!;
    if (/[ !#-[\]-~]/.test(character)) return character;
    return code > 0xffff ? `\\U${code.toString(16).padStart(8, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
  return `"${escaped.join("")}"`;
}

function usage(message: string): UserError {
  return new UserError(message, { code: ExitCode.usage });
}
