/** tokenizer.json: what is read of it here, and checks for what would abort the native library. */
import { z } from "zod";

const AddedToken = z.looseObject({
  id: z.int().nonnegative(),
  content: z.string(),
  special: z.boolean().default(false),
});

const Component: z.ZodType<Component> = z.looseObject({ type: z.string().optional() });
/** A normalizer, pre-tokenizer, post-processor or decoder: a type and its options. */
export type Component = { type?: string; [option: string]: unknown };

const Model = z.looseObject({
  type: z.string().optional(),
  continuing_subword_prefix: z.string().nullish(),
  merges: z.array(z.unknown()).optional(),
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

/**
 * The text of tokenizer.json without vocabulary and merges, which are most of it and which only the native library
 * reads. Falls back to the whole text where the file is not laid out as the library writes it, the model last.
 */
export function outline(text: string): string {
  const model = /,\s*"model"\s*:\s*\{\s*"type"\s*:/.exec(text);
  const vocabulary = model ? text.indexOf('"vocab"', model.index) : -1;
  if (vocabulary < 0) return text;
  const head = `${text.slice(0, vocabulary).replace(/,\s*$/, "")}}}`;
  try {
    const json = JSON.parse(head);
    const complete = OUTSIDE_MODEL.every((name) => Object.hasOwn(json, name));
    return complete && !json.model.continuing_subword_prefix ? head : text;
  } catch {
    return text;
  }
}

const OUTSIDE_MODEL = ["added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"];

/** The model's type; files of before 2020 leave it out. */
export function modelType({ model }: TokenizerJson): string {
  return model.type ?? (model.merges ? "BPE" : "WordPiece");
}

/**
 * What the native library takes for granted: where it does not hold, the library panics and the process is lost.
 * Returns what is wrong, or null.
 */
export function defect(json: TokenizerJson): string | null {
  for (const normalizer of flatten(json.normalizer, "normalizers")) {
    if (normalizer.type === "Precompiled" && !isCharsMap(normalizer.precompiled_charsmap)) {
      return "precompiled_charsmap is damaged";
    }
  }
  for (const processor of flatten(json.post_processor, "processors")) {
    const problem = processor.type === "TemplateProcessing" ? templateDefect(processor) : null;
    if (problem) return problem;
  }
  for (const splitter of flatten(json.pre_tokenizer, "pretokenizers")) {
    if (splitter.type === "FixedLength" && splitter.length === 0) return "pre_tokenizer cuts into pieces of length 0";
  }
  return mergesDefect(json.model);
}

/** A component, or the members of a Sequence of them, however deep. */
function flatten(component: Component | null | undefined, members: string): Component[] {
  if (!component) return [];
  if (component.type !== "Sequence") return [component];
  const parsed = z.array(Component).safeParse(component[members]);
  return parsed.success ? parsed.data.flatMap((member) => flatten(member, members)) : [];
}

/** SentencePiece's normalization table: base64 of a trie's size, the trie (uint32 each), and UTF-8 text. */
function isCharsMap(encoded: unknown): boolean {
  if (typeof encoded !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(encoded) || encoded.length % 4 !== 0) return false;
  const bytes = Buffer.from(encoded, "base64");
  if (bytes.length < 4) return false;
  const trieBytes = bytes.readUInt32LE(0);
  if (trieBytes === 0 || trieBytes % 4 !== 0 || trieBytes > bytes.length - 4) return false;
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(4 + trieBytes));
    return true;
  } catch {
    return false;
  }
}

const TemplatePiece = z.looseObject({ SpecialToken: z.looseObject({ id: z.string() }).optional() });
const Template = z.looseObject({
  single: z.array(TemplatePiece).default([]),
  pair: z.array(TemplatePiece).default([]),
  special_tokens: z
    .record(z.string(), z.looseObject({ ids: z.array(z.int()), tokens: z.array(z.string()) }))
    .default({}),
});

function templateDefect(processor: Component): string | null {
  const parsed = Template.safeParse(processor);
  if (!parsed.success) return "post_processor is not a template";
  const { single, pair, special_tokens: known } = parsed.data;
  for (const { SpecialToken: token } of [...single, ...pair]) {
    if (token && !Object.hasOwn(known, token.id)) return `post_processor names an unknown token ${token.id}`;
  }
  const uneven = Object.entries(known).find(([, { ids, tokens }]) => ids.length !== tokens.length);
  return uneven ? `post_processor gives ${uneven[0]} another number of ids than of tokens` : null;
}

/** The library joins a merge's halves without the second one's continuing prefix, and slices blindly. */
function mergesDefect({ continuing_subword_prefix: prefix, merges = [] }: z.infer<typeof Model>): string | null {
  if (!prefix) return null;
  const second = (merge: unknown): unknown => (Array.isArray(merge) ? merge : String(merge).split(" "))[1];
  const bad = merges.find((merge) => !String(second(merge)).startsWith(prefix));
  return bad === undefined ? null : `the merge ${JSON.stringify(bad)} lacks the prefix ${prefix}`;
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
