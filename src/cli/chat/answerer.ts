/** Answers a conversation: its prompt, the cache that carries over from turn to turn, the text as it comes. */
import { ExitCode, UserError } from "../../errors";
import { answer, type End, type Part } from "../../generate/answer";
import { constrain } from "../../generate/constrain";
import { DraftStepper, type Drafts } from "../../generate/draft-stepper";
import type { PromptImages } from "../../generate/images";
import { LoneStepper } from "../../generate/lone-stepper";
import { PrefixStore } from "../../generate/prefix-store";
import { forgetAlike } from "../../generate/ranks/alike";
import type { Stepper } from "../../generate/stepper";
import * as mx from "../../mlx";
import type { LanguageModel } from "../../models";
import type { AnswerFormat } from "../../sample/grammar/formats";
import type { Tokenizer } from "../../text/tokenizer";
import { fromLead } from "../group";
import { asChat, type Message } from "./conversation";
import type { Settings } from "./settings";

export interface ChatAnswererOptions {
  /** How many tokens the model takes, where that is known. */
  contextLength: number | null;
  /** Keep only so many tokens: then the conversation may be longer than the context. */
  maxKvSize?: number;
  prefillStepSize?: number;
  /** Bytes that may be in use. */
  maxMemory?: number;
  /** Who drafts tokens, if anyone. */
  drafts?: Drafts;
  /** The form that every answer is held to. */
  format?: AnswerFormat | null;
  /** Images that the first message is about. */
  images?: PromptImages | null;
}

export interface AnswerEvents {
  onText(text: string): void;
  /** What the model thinks before it answers. */
  onThought(text: string): void;
  onPrefill(done: number, total: number): void;
  signal: AbortSignal;
}

export interface Answer {
  text: string;
  reasoning: string;
  /** Prompt tokens that needed no work, since the cache held them. */
  cachedTokens: number;
  figures: Figures;
  /** Why it ended before the model was done, if it did. */
  cutBy: "max-tokens" | "context" | null;
}

/** mlx-lm's figures: `prompt_tokens` are those that were fed. */
export interface Figures extends Omit<End, "type" | "generated" | "tokens" | "cached_tokens" | "complete"> {
  /** Whether some of the tokens were drafted. */
  from_draft: boolean;
}

export class ChatAnswerer {
  readonly contextLength: number | null;
  /** Tokens of the conversation, its last answer among them; null before the first. */
  used: number | null = null;

  readonly #stepper: Stepper;
  readonly #prefixes: PrefixStore;
  readonly #format: AnswerFormat | null;
  readonly #images: PromptImages | null;

  constructor(
    model: LanguageModel,
    private readonly tokenizer: Tokenizer,
    options: ChatAnswererOptions,
  ) {
    const { drafts } = options;
    this.#stepper = drafts ? new DraftStepper(model, drafts, options) : new LoneStepper(model, options);
    this.#format = options.format ?? null;
    this.#images = options.images ?? null;
    const sizes = { maxSize: options.maxKvSize };
    this.#prefixes = new PrefixStore(() => model.makeCache(sizes), { isRigid: !forgetAlike(model, sizes) });
    this.contextLength = options.maxKvSize === undefined ? options.contextLength : null;
  }

  /** Whether the model thinks aloud. */
  get thinks(): boolean {
    return this.tokenizer.thinking !== null;
  }

  /** @throws UserError where the template refuses the messages, or they leave no room for an answer */
  async answer(messages: readonly Message[], settings: Settings, events: AnswerEvents): Promise<Answer> {
    const prompt = await this.#encoded(messages, settings, true);
    const room = this.#room(prompt.length);
    const maxTokens = settings.maxTokens === -1 ? room : Math.min(settings.maxTokens, room);

    const said = { text: "", reasoning: "" };
    const emit = (part: Part) => {
      if (part.type === "thought") {
        const text = said.reasoning === "" ? part.text.trimStart() : part.text;
        said.reasoning += text;
        events.onThought(text);
        return;
      }
      // No tools are on offer: a call is text like any other.
      const whole = part.type === "tool_calls" ? part.calls.map((call) => JSON.stringify(call)).join("\n") : part.text;
      // Markers of thoughts stand on lines of their own.
      const text = said.text === "" && said.reasoning !== "" ? whole.trimStart() : whole;
      said.text += text;
      events.onText(text);
    };

    const { temp, topP, minP, topK, xtcProbability, xtcThreshold } = settings;
    const { vocabSize: vocabularySize } = this.#stepper.model;
    const held = { tokenizer: this.tokenizer, vocabularySize, prompt };
    const request = {
      prompt,
      constraint: this.#format && (await constrain(this.#format, held)),
      takeApart: true,
      maxTokens: Number.isFinite(maxTokens) ? maxTokens : -1,
      sampler: { temp, topP, minP, topK, xtcProbability, xtcThreshold },
      onPrefill: events.onPrefill,
      signal: events.signal,
    };
    const by = { stepper: this.#stepper, tokenizer: this.tokenizer, prefixes: this.#prefixes };
    let end: End | undefined;
    const inputEmbeddings = this.#images?.embed(prompt);
    try {
      for await (const part of answer({ ...request, inputEmbeddings }, by)) {
        if (part.type === "end") end = part;
        else emit(part);
      }
    } finally {
      inputEmbeddings?.dispose();
    }
    const { type: _, generated, cached_tokens: cachedTokens, tokens: __, complete: ___, ...figures } = end!;
    this.used = prompt.length + generated.length;
    const cut = figures.finish_reason === "length";
    return {
      ...said,
      cachedTokens,
      figures: { from_draft: (figures.drafts?.accepted ?? 0) > 0, ...figures },
      cutBy: cut ? (generated.length === room ? "context" : "max-tokens") : null,
    };
  }

  /** How many tokens the messages have. @throws UserError where the template refuses them */
  async count(messages: readonly Message[], settings: Settings): Promise<number> {
    return messages.length === 0 ? 0 : (await this.#encoded(messages, settings, false)).length;
  }

  /** The same on all ranks, though a template may tell the time. */
  #encoded(messages: readonly Message[], settings: Settings, addGenerationPrompt: boolean): Promise<number[]> {
    return fromLead(() => this.#encodedHere(messages, settings, addGenerationPrompt));
  }

  #encodedHere(messages: readonly Message[], settings: Settings, addGenerationPrompt: boolean): Promise<number[]> {
    const kwargs = settings.thinking && { enable_thinking: settings.thinking === "on" };
    const options = { addGenerationPrompt, kwargs };
    const images = this.#images;
    const first = messages.findIndex(({ role }) => role === "user");
    if (!images || first < 0) return this.tokenizer.encodeChat(asChat(messages), options);
    const { content, ...rest } = messages[first]!;
    const seen = messages.with(first, { ...rest, content: images.placed(content) });
    const text = images.written(this.tokenizer.applyChatTemplate(asChat(seen), options));
    return this.tokenizer.encode(text, { addSpecialTokens: false });
  }

  seed(seed: number): void {
    mx.random.seed(seed);
  }

  /** Frees what it holds for all conversations. */
  dispose(): void {
    this.forget();
    this.#images?.dispose();
  }

  /** Gives the conversation's memory back. */
  forget(): void {
    this.#prefixes.clear();
    this.used = null;
  }

  /** How many tokens an answer may have. */
  #room(length: number): number {
    const limit = this.contextLength;
    if (limit === null) return Number.POSITIVE_INFINITY;
    if (length < limit) return limit - length;
    throw new UserError(`with this message the conversation has ${length} tokens, and the model takes ${limit}`, {
      code: ExitCode.usage,
      hint: "/clear begins a new one. With --max-kv-size N the model forgets the oldest tokens instead.",
    });
  }
}
