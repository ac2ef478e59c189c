/**
 * Forms that an answer must have: a schema, a grammar, a call of a tool. The one place where a request's wish for a form
 * becomes what holds an answer to it; every API brings its own wish here.
 */
import { UserError } from "../errors";
import { constrain } from "../generate/constrain";
import type { AnswerFormat } from "../sample/grammar/formats";
import { ApiError } from "./api-error";
import type { Tool } from "./chat";
import type { ServedModel } from "./models/served-model";

/** What an answer must be. */
export type Form =
  | { type: "json_object" }
  | { type: "json_schema"; schema: unknown }
  | { type: "regex"; regex: string }
  | { type: "choice"; choices: readonly string[] }
  | { type: "grammar"; grammar: string }
  /** A call of one of these tools, or several calls where that is said, or text where there need not be one. */
  | { type: "call"; tools: readonly Tool[]; isParallel?: boolean; isOptional?: boolean };

/** A wish, and the field of the request that it stands in. */
export interface FormWish {
  form: Form;
  param: string;
}

/** A tool on offer, and whether calls of it must fit its schema. */
export interface OfferedTool {
  tool: Tool;
  isStrict: boolean;
}

/** What holds calls of strict tools to their schemas while the model may answer in text; undefined where none is strict. */
export function strictCalls(offered: readonly OfferedTool[], isParallel: boolean): FormWish | undefined {
  if (!offered.some(({ isStrict }) => isStrict)) return undefined;
  // Calls of the others have any object.
  const tools = offered.map(({ tool, isStrict }): Tool => {
    return isStrict ? tool : { type: "function", function: { name: tool.function.name } };
  });
  return { param: "tools", form: { type: "call", tools, isParallel, isOptional: true } };
}

function formatOf(form: Form): AnswerFormat {
  if (form.type === "regex") return { type: "regex", pattern: form.regex };
  if (form.type === "call")
    return { type: "tools", tools: form.tools, parallel: form.isParallel, optional: form.isOptional };
  return form;
}

/** The format of an answer's form. @throws ApiError 400 that names the field where the model can't be held to it */
export async function heldForm(served: ServedModel, wish: FormWish | undefined): Promise<AnswerFormat | undefined> {
  if (!wish) return undefined;
  const format = formatOf(wish.form);
  const { tokenizer, model } = served;
  try {
    // Compiled here, it is at hand when the answer begins.
    const constraint = await constrain(format, { tokenizer, vocabularySize: model.vocabSize, prompt: [] });
    constraint.dispose();
    return format;
  } catch (cause) {
    if (!(cause instanceof UserError)) throw cause;
    throw new ApiError(400, `"${wish.param}": ${cause.message}`, { param: wish.param, cause });
  }
}
