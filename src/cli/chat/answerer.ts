/** Answers a conversation: its prompt, the cache that carries over from turn to turn, the text as it comes. */
import { ExitCode, UserError } from "../../errors";
import { PrefixCache } from "../../generate/prefix-cache";
import { type GenerationResponse, streamGenerate } from "../../generate/stream";
import * as mx from "../../mlx";
import type { LanguageModel } from "../../models";
import { makeSampler } from "../../sample";
import type { ResponsePart } from "../../text/response";
import type { Tokenizer } from "../../text/tokenizer";
import { asChat, type Message } from "./conversation";
import type { Settings } from "./settings";

export interface AnswererOptions {
  /** How many tokens the model takes, where that is known. */
  contextLength: number | null;
  /** Keep only so many tokens: then the conversation may be longer than the context. */
  maxKvSize?: number;
  prefillStepSize: number;
  /** Bytes that may be in use. */
  maxMemory?: number;
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
  /** Figures of the last token; `prompt_tokens` are those that were fed. */
  figures: GenerationResponse;
  /** Why it ended before the model was done, if it did. */
  cutBy: "max-tokens" | "context" | null;
}

export class Answerer {
  readonly contextLength: number | null;
  /** Tokens of the conversation, its last answer among them; null before the first. */
  used: number | null = null;

  readonly #cache: PrefixCache;

  constructor(
    private readonly model: LanguageModel,
    private readonly tokenizer: Tokenizer,
    private readonly options: AnswererOptions,
  ) {
    this.#cache = new PrefixCache(() => model.makeCache({ maxSize: options.maxKvSize }));
    this.contextLength = options.maxKvSize === undefined ? options.contextLength : null;
  }

  /** Whether the model thinks aloud. */
  get thinks(): boolean {
    return this.tokenizer.thinking !== null;
  }

  /** @throws UserError where the template refuses the messages, or they leave no room for an answer */
  async answer(messages: readonly Message[], settings: Settings, events: AnswerEvents): Promise<Answer> {
    const prompt = await this.tokenizer.encodeChat(asChat(messages), {
      addGenerationPrompt: true,
      kwargs: settings.thinking && { enable_thinking: settings.thinking === "on" },
    });
    const room = this.#room(prompt.length);
    const maxTokens = settings.maxTokens === -1 ? room : Math.min(settings.maxTokens, room);

    const cachedTokens = this.#cache.reuse(prompt);
    const tokens = [...prompt];
    const reader = this.tokenizer.response(prompt);
    const said = { text: "", reasoning: "" };
    const emit = (parts: readonly ResponsePart[]) => {
      for (const part of parts) {
        if (part.type === "reasoning") {
          const text = said.reasoning === "" ? part.text.trimStart() : part.text;
          said.reasoning += text;
          events.onThought(text);
          continue;
        }
        // No tools are on offer: a call is text like any other.
        const whole = part.type === "calls" ? part.calls.map((call) => JSON.stringify(call)).join("\n") : part.text;
        // Markers of thoughts stand on lines of their own.
        const text = said.text === "" && said.reasoning !== "" ? whole.trimStart() : whole;
        said.text += text;
        events.onText(text);
      }
    };

    let figures: GenerationResponse | undefined;
    for await (const response of streamGenerate(this.model, this.tokenizer, prompt.slice(cachedTokens), {
      maxTokens: Number.isFinite(maxTokens) ? maxTokens : -1,
      sampler: await this.#sampler(settings),
      prefillStepSize: this.options.prefillStepSize,
      maxMemory: this.options.maxMemory,
      cache: this.#cache.layers,
      onPrefill: events.onPrefill,
      signal: events.signal,
    })) {
      // The last response of an interrupted answer repeats a token.
      if (response.finish_reason !== "interrupted") tokens.push(response.token);
      emit(reader.push(response.text));
      figures = response;
    }
    emit(reader.end());
    this.#cache.settle(tokens, { interrupted: figures!.finish_reason === "interrupted" });
    this.used = tokens.length;
    const cut = figures!.finish_reason === "length";
    return {
      ...said,
      cachedTokens,
      figures: figures!,
      cutBy: cut ? (tokens.length - prompt.length === room ? "context" : "max-tokens") : null,
    };
  }

  seed(seed: number): void {
    mx.random.seed(seed);
  }

  /** Gives the conversation's memory back. */
  forget(): void {
    this.#cache.clear();
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

  async #sampler({ temp, topP, xtcProbability, xtcThreshold }: Settings) {
    const xtcSpecialTokens = [...(await this.tokenizer.encode("\n")), ...this.tokenizer.eosTokenIds];
    return makeSampler({ temp, topP, xtcProbability, xtcThreshold, xtcSpecialTokens });
  }
}
