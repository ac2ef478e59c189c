/** tokenizer_config.json and the small files beside it: special tokens, post-processing, chat templates. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readChecked, readText } from "../json-file";

const NamedToken = z.union([z.string(), z.looseObject({ content: z.string() }).transform((token) => token.content)]);

const AddedToken = z.looseObject({
  content: z.string(),
  special: z.boolean().default(false),
  single_word: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  normalized: z.boolean().optional(),
});
export type AddedToken = z.infer<typeof AddedToken>;

const ExtraTokens = z.union([z.array(NamedToken), z.record(z.string(), NamedToken)]);

const SpecialTokensMap = z.looseObject({
  bos_token: NamedToken.nullish(),
  eos_token: NamedToken.nullish(),
  additional_special_tokens: ExtraTokens.nullish(),
  extra_special_tokens: ExtraTokens.nullish(),
});

const TokenizerConfig = SpecialTokensMap.extend({
  tokenizer_class: z.string().nullish(),
  chat_template_type: z.string().nullish(),
  tool_parser_type: z.string().nullish(),
  added_tokens_decoder: z.record(z.string(), AddedToken).optional(),
  clean_up_tokenization_spaces: z.boolean().nullish(),
  chat_template: z.union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))]).nullish(),
});
/** tokenizer_config.json, read; fields that are not named here pass through. */
export type TokenizerConfig = z.infer<typeof TokenizerConfig>;

/** Chat templates by name; a checkpoint with only one calls it "default". */
export type ChatTemplates = Map<string, string>;

/**
 * Reads tokenizer_config.json (none is an empty one), completed by special_tokens_map.json where the former does not
 * list its added tokens, as transformers does.
 * @throws UserError that names the file and the field.
 */
export async function readTokenizerConfig(folder: string): Promise<TokenizerConfig> {
  const config = (await readChecked(join(folder, "tokenizer_config.json"), TokenizerConfig)) ?? {};
  if (config.added_tokens_decoder) return config;
  return { ...config, ...(await readChecked(join(folder, "special_tokens_map.json"), SpecialTokensMap)) };
}

/** The special tokens that have names, which a chat template sees: bos_token, eos_token, image_token, … */
export function namedTokens(config: TokenizerConfig): Record<string, string> {
  const extra = extraTokens(config);
  const named: Record<string, string> = Array.isArray(extra) ? {} : { ...extra };
  for (const [name, value] of Object.entries(config)) {
    const token = name.endsWith("_token") ? NamedToken.safeParse(value) : null;
    if (token?.success) named[name] = token.data;
  }
  return named;
}

/** Every special token that the config declares, named or not. */
export function specialTokens(config: TokenizerConfig): string[] {
  return [...new Set([...Object.values(namedTokens(config)), ...Object.values(extraTokens(config))])];
}

function extraTokens(config: TokenizerConfig): string[] | Record<string, string> {
  return config.extra_special_tokens ?? config.additional_special_tokens ?? [];
}

/**
 * The checkpoint's chat templates. chat_template.jinja and additional_chat_templates/ win over tokenizer_config.json,
 * which wins over a processor's chat_template.json.
 */
export async function readChatTemplates(folder: string, config: TokenizerConfig): Promise<ChatTemplates> {
  const files = new Map<string, string>();
  const single = await readText(join(folder, "chat_template.jinja"));
  if (single !== null) files.set("default", single);
  const more = join(folder, "additional_chat_templates");
  for (const name of await readdir(more).catch(() => [])) {
    const template = name.endsWith(".jinja") ? await readText(join(more, name)) : null;
    if (template !== null) files.set(name.slice(0, -".jinja".length), template);
  }
  if (files.size > 0) return files;

  const { chat_template: template } = config;
  if (typeof template === "string") return new Map([["default", template]]);
  if (template) return new Map(template.map(({ name, template }) => [name, template]));

  const ofProcessor = await readChecked(join(folder, "chat_template.json"), z.object({ chat_template: z.string() }));
  return ofProcessor ? new Map([["default", ofProcessor.chat_template]]) : new Map();
}
