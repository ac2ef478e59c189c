/**
 * Forms that an answer must have: a schema, a grammar, a call of a tool. The one place where a request's wish for a form
 * becomes a logits processor; every API brings its own wish here.
 */
import type { LogitsProcessor } from "../sample";
import { unsupported } from "./api-error";
import type { Tool } from "./chat";
import type { ServedModel } from "./models/served-model";

/** What an answer must be. */
export type Form =
  | { type: "json_object" }
  | { type: "json_schema"; schema: unknown }
  | { type: "regex"; regex: string }
  | { type: "choice"; choices: readonly string[] }
  | { type: "grammar"; grammar: string }
  /** A call of one of these tools. */
  | { type: "call"; tools: readonly Tool[] };

/** A wish, and the field of the request that it stands in. */
export interface FormWish {
  form: Form;
  param: string;
}

/** The processor that keeps an answer to its form. @throws ApiError 400 that names the field where that can't be had */
export function processorOf(_served: ServedModel, wish: FormWish | undefined): LogitsProcessor | undefined {
  if (!wish) return undefined;
  throw unsupported(
    wish.param,
    `asks for an answer in a form (${wish.form.type}), which this server cannot keep it to`,
  );
}
