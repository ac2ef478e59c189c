/**
 * From what is asked of an answer's form to what holds it there.
 *
 *   const constraint = await constrain(format, { tokenizer, vocabularySize: model.vocabSize, prompt, tools });
 *   for await (const part of answer({ prompt, constraint, … }, { stepper, tokenizer })) …
 *
 * `format` is one of
 *   { type: "json_object" }                any JSON object
 *   { type: "json_schema", schema }        JSON that fits the schema; a keyword that a grammar cannot hold is an error
 *   { type: "regex", pattern }             a text that the whole of the pattern matches
 *   { type: "choice", choices }            one of these texts
 *   { type: "grammar", grammar }           a text by the rule `root` of a grammar in EBNF
 *   { type: "tools", tools, … }            one call or several of these tools, in the format that the model was trained on
 * and stands for OpenAI's `response_format` and `tool_choice` too (`formatOfResponse`, `formatOfToolChoice`).
 *
 * Every error is a UserError with exit code `usage` (a server's 400), thrown before any work of the model. The constraint
 * belongs to the answer that it is given to, which frees it. The answer's end says by `complete` whether it fits to the
 * end: false where max-tokens or a stop text cut it.
 *
 * A model that thinks does so freely before the answer. With tools on offer it may call one instead of answering.
 */
import type { LanguageModel } from "../models";
import { Constraint, type FreePart } from "../sample/grammar/constraint";
import { type AnswerFormat, grammarOf } from "../sample/grammar/formats";
import { grammarCompiler } from "../sample/grammar/vocabulary";
import { opensThought } from "../text/thinking";
import type { Tokenizer } from "../text/tokenizer";

/** What an answer is held to, in words: for other processes that hold it to the same. */
export interface HeldForm extends Pick<ConstrainOptions, "takeApart" | "tools"> {
  format: AnswerFormat;
}

export interface ConstrainOptions {
  tokenizer: Tokenizer;
  /** How many logits the model gives. */
  vocabularySize: LanguageModel["vocabSize"];
  /** Tells whether the answer begins in a thought. */
  prompt: readonly number[];
  /** Whether thoughts and calls may come before the answer; true unless the answer is taken as it stands. */
  takeApart?: boolean;
  /** Tools that the model may call instead of answering. */
  tools?: readonly unknown[] | null;
}

/** @throws UserError for a format that cannot be held to, naming what is in the way */
export async function constrain(format: AnswerFormat, options: ConstrainOptions): Promise<Constraint> {
  const { tokenizer, vocabularySize, takeApart = true } = options;
  const { language, text } = grammarOf(format, tokenizer);
  const matcher = await grammarCompiler(tokenizer, vocabularySize).matcher(language, text);
  const stops = tokenizer.eosTokenIds;
  if (!takeApart) return new Constraint(matcher, { stops });
  const { opensWith, parts } = await freeParts(options, format.type === "tools");
  return new Constraint(matcher, { opensWith, parts, stops });
}

/** What may come before the answer, by how the model lays its answers out. */
async function freeParts({ tokenizer, prompt, tools }: ConstrainOptions, callsAnyway: boolean) {
  const { thinking, toolFormat } = tokenizer;
  const marker = callsAnyway ? null : tokenizer.answerMarker;
  const tokensOf = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
  // In a markup, all that comes before the answer's own marker is something else.
  if (marker !== null) return { opensWith: await tokensOf(marker), parts: [] };

  const parts: FreePart[] = [];
  if (thinking && !hasThought(prompt, tokenizer)) parts.push({ start: thinking.startTokens, end: thinking.endTokens });
  const call = tools?.length && !callsAnyway && toolFormat ? tokenizer.idOf(toolFormat.start) : null;
  if (call !== null) parts.push({ start: [call], end: null });
  return { opensWith: thinking && opensThought(prompt, thinking) ? thinking.endTokens : null, parts };
}

/** How many tokens of white space a template puts behind a thought. */
const spaces = 2;

/** Whether a prompt ends with a thought, perhaps an empty one that stands for none. */
function hasThought(prompt: readonly number[], { thinking }: Tokenizer): boolean {
  const { endTokens } = thinking!;
  const last = prompt.lastIndexOf(endTokens.at(-1)!);
  return last >= 0 && prompt.length - 1 - last <= spaces;
}
