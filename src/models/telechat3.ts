/** TeleChat 3: Llama whose head is not the embedding unless it says so. */
import { z } from "zod";
import * as llama from "./llama";

export const Args = z
  .record(z.string(), z.unknown())
  .transform((config): Record<string, unknown> => ({ tie_word_embeddings: false, ...config }))
  .pipe(llama.Args as z.ZodType<z.infer<typeof llama.Args>, Record<string, unknown>>);

export { awq, Model } from "./llama";
