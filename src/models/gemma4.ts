/** Gemma 4, the language model of the checkpoints that also see and hear. Also the unified kind, without encoders. */
import type { z } from "zod";
import * as text from "./gemma4_text";
import { NestedLM, nestedArgs } from "./nested";

export const Args = nestedArgs(text.Args);

export class Model extends NestedLM {
  constructor(args: z.infer<typeof text.Args>) {
    super(new text.Model(args));
  }
}

export { quantize } from "./gemma4_text";

export const gguf = text.facts("language_model.");
