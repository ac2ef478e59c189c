/** tokenizer.json: what is read of it here. */
import { z } from "zod";

const AddedToken = z.looseObject({
  id: z.int().nonnegative(),
  content: z.string(),
  special: z.boolean().default(false),
  normalized: z.boolean().optional(),
});

export const Component: z.ZodType<Component> = z.looseObject({ type: z.string().optional() });
/** A normalizer, pre-tokenizer, post-processor or decoder: a type and its options. */
export type Component = { type?: string; [option: string]: unknown };

const Model = z.looseObject({
  type: z.string().optional(),
  continuing_subword_prefix: z.string().nullish(),
  merges: z.array(z.unknown()).nullish(),
});

export const TokenizerJson = z.looseObject({
  added_tokens: z.array(AddedToken).nullish(),
  normalizer: Component.nullish(),
  pre_tokenizer: Component.nullish(),
  post_processor: Component.nullish(),
  decoder: Component.nullish(),
  model: Model,
});
export type TokenizerJson = z.infer<typeof TokenizerJson>;

/** The model's type; files of before 2020 leave it out. */
export function modelType({ model }: Pick<TokenizerJson, "model">): string {
  return model.type ?? (model.merges ? "BPE" : "WordPiece");
}

/** The tokenizer.json that GPT-2's two files stand for. */
export function gpt2TokenizerJson(vocab: Record<string, number>, merges: string): TokenizerJson {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const lines = merges.split(/\r?\n/).filter((line) => line !== "" && !line.startsWith("#version"));
  return TokenizerJson.parse({
    version: "1.0",
    added_tokens: [],
    pre_tokenizer: byteLevel,
    post_processor: { ...byteLevel, trim_offsets: false },
    decoder: byteLevel,
    model: { type: "BPE", vocab, merges: lines.map((line) => line.split(" ")) },
  });
}
