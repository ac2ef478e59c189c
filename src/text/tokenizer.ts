/** The tokenizer of a checkpoint: codec, stop tokens, chat template, streaming, thinking markers. */
import { ExitCode, UserError } from "../errors";
import { type ChatMessage, type ChatOptions, ChatTemplate } from "./chat-template";
import { type Codec, type DecodeOptions, type EncodeOptions, openCodec } from "./codec";
import { type CodedChat, codedChat, renderByCode } from "./coded-chats";
import type { Detokenizer } from "./detokenizer";
import { detokenizerKind, makeDetokenizer } from "./pick-detokenizer";
import { type ResponseOptions, ResponseReader } from "./response";
import { answerMarker, inferThinking, opensThought, structuralMarkers, type Thinking } from "./thinking";
import { tokenBytes } from "./token-bytes";
import {
  type ChatTemplates,
  namedTokens,
  readChatTemplates,
  readTokenizerConfig,
  type TokenizerConfig,
} from "./tokenizer-config";
import { inferToolFormat, type ToolFormat, toolFormat } from "./tools";

export interface LoadOptions {
  /** Stop tokens beside the tokenizer's own, as config.json or generation_config.json give them. */
  eosTokenIds?: Iterable<number>;
  /** A template that takes the place of the checkpoint's. */
  chatTemplate?: string;
  /** What the architecture goes by where tokenizer_config.json does not say; its field names. */
  defaults?: { chat_template_type?: string; tool_parser_type?: string };
}

/**
 * Loads the tokenizer of a checkpoint folder.
 * @throws UserError where the folder has no tokenizer that can be read, naming the file and what is wrong with it.
 */
export async function loadTokenizer(folder: string, options: LoadOptions = {}): Promise<Tokenizer> {
  const config = await readTokenizerConfig(folder);
  const codec = await openCodec(folder, config);
  const [thinking, templates, probe] = await Promise.all([
    inferThinking(codec),
    options.chatTemplate === undefined
      ? readChatTemplates(folder, config)
      : new Map([["default", options.chatTemplate]]),
    codec.encode("a ,b", { addSpecialTokens: false }),
  ]);
  const cleansSpaces = !codec.decode(probe).includes(" ,");
  const { chat_template_type, tool_parser_type } = { ...options.defaults, ...config };
  return new Tokenizer(
    {
      folder,
      codec,
      config,
      thinking,
      templates,
      cleansSpaces,
      chatCode: chat_template_type || null,
      // A template of the checkpoint's own wins over code that only the architecture asks for.
      codeWrites: config.chat_template_type !== undefined || templates.size === 0,
      toolParser: tool_parser_type ?? inferToolFormat(onlyTemplate(templates), (token) => codec.idOf(token) !== null),
    },
    options.eosTokenIds,
  );
}

interface Parts {
  folder: string;
  codec: Codec;
  config: TokenizerConfig;
  thinking: Thinking | null;
  templates: ChatTemplates;
  /** Decoding drops the space before punctuation. */
  cleansSpaces: boolean;
  /** Of a chat that code lays out, its chat_template_type. */
  chatCode: string | null;
  /** That code, rather than a template, writes the prompts. */
  codeWrites: boolean;
  /** The name of the format in which the model calls tools. */
  toolParser: string | null;
}

export class Tokenizer {
  /** tokenizer_config.json as it was read. */
  readonly config: TokenizerConfig;
  readonly vocabSize: number;
  readonly bosToken: string | null;
  readonly eosToken: string | null;
  /** Any of these ends a text. */
  readonly eosTokenIds: Set<number>;
  readonly hasChatTemplate: boolean;
  /** The markers around the model's thoughts, or null for a model that does not think. */
  readonly thinking: Thinking | null;

  readonly #parts: Parts;
  readonly #templates = new Map<string, ChatTemplate>();

  constructor(parts: Parts, eosTokenIds: Iterable<number> = []) {
    const { codec, config } = parts;
    this.#parts = parts;
    this.config = config;
    this.vocabSize = codec.vocabSize;
    this.bosToken = config.bos_token ?? null;
    this.eosToken = config.eos_token ?? null;
    this.eosTokenIds = new Set(eosTokenIds);
    const eos = this.eosToken === null ? null : codec.idOf(this.eosToken);
    if (eos !== null) this.eosTokenIds.add(eos);
    this.hasChatTemplate = parts.templates.size > 0 || parts.chatCode !== null;
    this.thinking = parts.thinking;
  }

  encode(text: string, options?: EncodeOptions): Promise<number[]> {
    return this.#parts.codec.encode(text, options);
  }

  encodeBatch(texts: string[], options?: EncodeOptions): Promise<number[][]> {
    return this.#parts.codec.encodeBatch(texts, options);
  }

  decode(ids: number[], options?: DecodeOptions): string {
    return this.#parts.codec.decode(ids, options);
  }

  idOf(token: string): number | null {
    return this.#parts.codec.idOf(token);
  }

  tokenOf(id: number): string | null {
    return this.#parts.codec.tokenOf(id);
  }

  /** The bytes that each of the first `count` ids adds to a text; none for special tokens and ids without a token. */
  tokenBytes(count: number): Uint8Array[] {
    return tokenBytes(this.#parts.codec, count);
  }

  /** The marker before what the user is told, of a markup that has one. */
  get answerMarker(): string | null {
    return answerMarker(this.#parts.codec);
  }

  /** Ids of tokens that mark thoughts, calls of tools and other parts of an answer: text should not hold them. */
  markerTokens(): Set<number> {
    const { thinking, toolFormat } = this;
    const markers = [thinking?.start, thinking?.end, toolFormat?.start, toolFormat?.end];
    const ids = [...markers, ...structuralMarkers(this.#parts.codec)].map((marker) =>
      marker ? this.idOf(marker) : null,
    );
    return new Set(ids.filter((id) => id !== null));
  }

  /**
   * The format in which the model calls tools, or null for a model that can't.
   * @throws UserError where tokenizer_config.json names a format that is not known.
   */
  get toolFormat(): ToolFormat | null {
    const { toolParser, folder } = this.#parts;
    return toolParser === null ? null : toolFormat(toolParser, folder);
  }

  /** Reads the answer to a prompt as it arrives: thoughts, text, calls of tools. */
  response(prompt: readonly number[], options: Omit<ResponseOptions, "inThought"> = {}): ResponseReader {
    const { thinking, toolFormat: tools } = this;
    const markers = {
      thinking,
      tools,
      structural: structuralMarkers(this.#parts.codec),
      layout: this.#coded()?.layout,
    };
    return new ResponseReader(markers, { ...options, inThought: thinking !== null && opensThought(prompt, thinking) });
  }

  /** A new streaming detokenizer; one a text. */
  detokenizer(): Detokenizer {
    const { codec, cleansSpaces } = this.#parts;
    return makeDetokenizer(codec, detokenizerKind(codec.decoder), cleansSpaces);
  }

  /**
   * Adds a stop token by its id (a number, or digits) or by its text.
   * @throws UserError for a text that is no token.
   */
  addEosToken(token: number | string): void {
    const id = typeof token === "number" ? token : /^\s*-?\d+\s*$/.test(token) ? Number(token) : this.idOf(token);
    if (id === null) {
      throw new UserError(`"${token}" is not a token of this model.`, {
        code: ExitCode.usage,
        hint: "Give one whole token, or its id.",
      });
    }
    this.eosTokenIds.add(id);
  }

  /**
   * The messages as the prompt that the model was trained on. Templates see `enable_thinking`, which is whether the
   * model thinks unless `kwargs` says otherwise.
   * @throws UserError where there is no template, or it refuses the messages.
   */
  applyChatTemplate(messages: ChatMessage[], options: ChatOptions = {}): string {
    const kwargs = { ...namedTokens(this.config), enable_thinking: this.thinking !== null, ...options.kwargs };
    const render = this.#parts.codeWrites ? this.#coded()?.render : undefined;
    if (render) return renderByCode(render, messages, { ...options, kwargs }, this.#parts.folder);
    return this.#template(options.tools != null).render(messages, { ...options, kwargs });
  }

  /** applyChatTemplate's prompt as ids; the template writes its own special tokens. */
  encodeChat(messages: ChatMessage[], options?: ChatOptions): Promise<number[]> {
    return this.encode(this.applyChatTemplate(messages, options), { addSpecialTokens: false });
  }

  #coded(): CodedChat | null {
    const { chatCode, folder } = this.#parts;
    return chatCode === null ? null : codedChat(chatCode, folder);
  }

  #template(withTools: boolean): ChatTemplate {
    const { folder, templates } = this.#parts;
    const name = withTools && templates.has("tool_use") ? "tool_use" : "default";
    const source = templates.get(name);
    if (source === undefined) throw noTemplate(folder, [...templates.keys()]);
    const template = this.#templates.get(name) ?? new ChatTemplate(source, folder);
    this.#templates.set(name, template);
    return template;
  }
}

/** The template where it is the only one: of several, none tells the format of tool calls. */
function onlyTemplate(templates: ChatTemplates): string | null {
  return templates.size === 1 ? (templates.get("default") ?? null) : null;
}

function noTemplate(folder: string, names: string[]): UserError {
  const has = names.length > 0 ? `no default chat template, only ${names.join(", ")}` : "no chat template";
  return new UserError(`${folder} has ${has}.`, {
    hint: "Use an instruction-tuned model, or give the prompt as plain text.",
  });
}
