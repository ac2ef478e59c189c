/** A checkpoint's tokenizer as the metadata of a GGUF file. */
import { join } from "node:path";
import { z } from "zod";
import { ExitCode, UserError } from "../../errors";
import { readChecked } from "../../json-file";
import type { GgufField } from "../../models";
import { openCodec } from "../../text/codec";
import { namedTokens, readChatTemplates, readTokenizerConfig, type TokenizerConfig } from "../../text/tokenizer-config";
import { preTokenizerName } from "./pre-tokenizers";
import { rwkvTokenizer } from "./rwkv-tokens";

/** What `tokenizer.ggml.token_type` says of a token. */
const kinds = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 };

const Component = z.looseObject({ type: z.string() }).nullish();

const TokenizerJson = z.looseObject({
  added_tokens: z
    .array(z.looseObject({ id: z.int().nonnegative(), content: z.string(), special: z.boolean().default(false) }))
    .nullish(),
  normalizer: Component,
  pre_tokenizer: Component,
  model: z.looseObject({
    type: z.string().nullish(),
    // Read below: a schema would take long over hundreds of thousands, and lose a token called "__proto__".
    vocab: z.custom<Record<string, unknown>>((value) => typeof value === "object" && value !== null),
    merges: z.custom<unknown[]>((value) => Array.isArray(value)).default([]),
    unk_token: z.string().nullish(),
    byte_fallback: z.boolean().nullish(),
    ignore_merges: z.boolean().nullish(),
  }),
});

type TokenizerJson = z.infer<typeof TokenizerJson>;

/**
 * The fields `tokenizer.*` for the tokenizer in `folder`.
 * @param size rows of the embedding: ids that the tokenizer lacks are filled up
 * @param ends ids that end a text, as config.json has them
 * @throws UserError for a tokenizer that is missing, broken, or of a kind that GGUF has no name for
 */
export async function tokenizerFields(
  folder: string,
  size: number,
  ends: readonly number[],
): Promise<[string, GgufField][]> {
  const config = await readTokenizerConfig(folder);
  const { kind, vocabulary, unknown } = await described(folder, size, config);
  const named = namedTokens(config);
  const ids = new Map<string, number>();
  for (const [id, token] of vocabulary.tokens.entries()) ids.set(token, id);
  const [addsBos, addsEos] = await addedByItself(folder, config, ids.get(named.bos_token ?? ""));
  const template = (await readChatTemplates(folder, config)).get("default");
  const endId = ids.get(named.eos_token ?? "") ?? ends[0];
  const otherEnd = ends.find((id) => id !== endId && id < size);
  return [
    ...kind,
    ["tokenizer.ggml.tokens", ["string", vocabulary.tokens]],
    ["tokenizer.ggml.token_type", ["int32", vocabulary.types]],
    ...idField("bos", ids.get(named.bos_token ?? "")),
    ...idField("eos", endId),
    ...idField("eot", otherEnd),
    ...idField("unknown", ids.get(named.unk_token ?? unknown ?? "")),
    ...idField("padding", ids.get(named.pad_token ?? "")),
    ["tokenizer.ggml.add_bos_token", ["bool", addsBos]],
    ["tokenizer.ggml.add_eos_token", ["bool", addsEos]],
    ...(template === undefined ? [] : [["tokenizer.chat_template", ["string", template]] as [string, GgufField]]),
  ];
}

interface Described {
  /** What says of which kind the tokenizer is. */
  kind: [string, GgufField][];
  vocabulary: Vocabulary;
  unknown?: string | null;
}

async function described(folder: string, size: number, config: TokenizerConfig): Promise<Described> {
  const json = await readChecked(join(folder, "tokenizer.json"), TokenizerJson);
  const rwkv = json ? null : await rwkvTokenizer(folder, size, config);
  if (rwkv) return rwkv;
  if (!json) {
    throw new UserError(`${folder} has no tokenizer.json`, {
      code: ExitCode.notFound,
      hint: "A GGUF file holds its tokenizer: put the model's tokenizer.json into the folder.",
    });
  }
  if ((json.model.type ?? "BPE") !== "BPE") refuse(folder, `is of the type ${json.model.type}; GGUF export takes BPE`);
  const vocabulary = readVocabulary(json, size, folder);
  const isByteLevel = JSON.stringify(json.pre_tokenizer ?? {}).includes('"ByteLevel"');
  const kind = isByteLevel ? byteLevel(json, folder) : sentencePiece(json, vocabulary, folder);
  return { kind, vocabulary, unknown: json.model.unk_token };
}

function refuse(folder: string, problem: string): never {
  throw new UserError(`the tokenizer of ${folder} ${problem}`, {
    code: ExitCode.notFound,
    hint: "Save the model without a GGUF file.",
  });
}

const idField = (name: string, id: number | undefined): [string, GgufField][] =>
  id === undefined ? [] : [[`tokenizer.ggml.${name}_token_id`, ["uint32", id]]];

interface Vocabulary {
  tokens: string[];
  types: number[];
}

function readVocabulary({ model, added_tokens }: TokenizerJson, size: number, folder: string): Vocabulary {
  const tokens: string[] = [];
  const types: number[] = [];
  const put = (token: string, id: unknown, type: number) => {
    if (!Number.isInteger(id) || (id as number) < 0) refuse(folder, `gives ${JSON.stringify(token)} no proper id`);
    if ((id as number) >= size) refuse(folder, `has the token ${id}, but the model knows only ${size}`);
    tokens[id as number] = token;
    types[id as number] = type;
  };
  for (const [token, id] of Object.entries(model.vocab)) {
    const isByte = model.byte_fallback && /^<0x[0-9A-Fa-f]{2}>$/.test(token);
    put(token, id, isByte ? kinds.byte : token === model.unk_token ? kinds.unknown : kinds.normal);
  }
  for (const { id, content, special } of added_tokens ?? []) {
    if (types[id] === kinds.unknown && tokens[id] === content) continue;
    put(content, id, special ? kinds.control : kinds.userDefined);
  }
  for (let id = 0; id < size; id++) {
    if (tokens[id] === undefined) put(`[PAD${id}]`, id, kinds.unused);
  }
  return { tokens, types };
}

function byteLevel({ model, pre_tokenizer }: TokenizerJson, folder: string): [string, GgufField][] {
  const pre = preTokenizerName(pre_tokenizer, model.ignore_merges ?? false);
  if (pre === null) refuse(folder, "splits words by a rule for which mlxlm knows no name in GGUF");
  const merges = pairsOf(model.merges, folder).map((pair) => pair.join(" "));
  return [
    ["tokenizer.ggml.model", ["string", "gpt2"]],
    ["tokenizer.ggml.pre", ["string", pre]],
    ["tokenizer.ggml.merges", ["string", merges]],
  ];
}

/** Scores fall from merge to merge, as SentencePiece's do; what no merge makes is never sought by its score. */
function sentencePiece(
  { model, normalizer, pre_tokenizer }: TokenizerJson,
  { tokens }: Vocabulary,
  folder: string,
): [string, GgufField][] {
  const splitting = JSON.stringify([normalizer ?? {}, pre_tokenizer ?? {}]);
  if (!splitting.includes("▁")) refuse(folder, "is neither byte-level nor SentencePiece's");
  const ranks = new Map<string, number>();
  for (const [left, right] of pairsOf(model.merges, folder)) {
    if (!ranks.has(left + right)) ranks.set(left + right, -ranks.size);
  }
  const prefixes = splitting.includes('"Prepend"') || /"prepend_scheme":"(first|always)"/.test(splitting);
  return [
    ["tokenizer.ggml.model", ["string", "llama"]],
    ["tokenizer.ggml.pre", ["string", "default"]],
    ["tokenizer.ggml.scores", ["float32", tokens.map((token) => ranks.get(token) ?? -ranks.size)]],
    ["tokenizer.ggml.add_space_prefix", ["bool", prefixes]],
  ];
}

/** Merges are texts with a space, or pairs. */
function pairsOf(merges: readonly unknown[], folder: string): [string, string][] {
  return merges.map((merge) => {
    const pair: unknown[] = typeof merge === "string" ? merge.split(" ") : Array.isArray(merge) ? merge : [];
    if (pair.length !== 2 || pair.some((part) => typeof part !== "string" || part === "")) {
      refuse(folder, `has a merge that is no pair: ${JSON.stringify(merge)}`);
    }
    return pair as [string, string];
  });
}

/** Whether the tokenizer puts bos ahead of every text, and anything behind. */
async function addedByItself(
  folder: string,
  config: TokenizerConfig,
  bos: number | undefined,
): Promise<[bos: boolean, eos: boolean]> {
  const codec = await openCodec(folder, config);
  const [whole, own] = await Promise.all([codec.encode("a"), codec.encode("a", { addSpecialTokens: false })]);
  const before = whole.length > own.length && whole[0] === bos && whole[0] !== own[0];
  return [before, whole.length > own.length + (before ? 1 : 0)];
}
