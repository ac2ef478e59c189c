/** A model answering requests of tasks: as mlx-lm's adapter of the harness does, each once. */
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { Sampler } from "../sample";
import type { Tokenizer } from "../text/tokenizer";
import type { AnswerCache } from "./answer-cache";
import { completeTexts } from "./completions";
import { type ContextGroup, scoreContinuations, scoreTexts } from "./likelihoods";
import type { Answer, Likelihood, Request } from "./tasks/request";

export interface AnswerOptions {
  batchSize: number;
  /** Of answers, over what tasks say; of contexts, what is kept of them. */
  maxTokens?: number;
  /** Prompts come from a chat template, which writes its own special tokens. */
  usesChatTemplate: boolean;
  sampler: Sampler;
  /** Answers of earlier runs. */
  cache?: AnswerCache;
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** Where neither the user nor the task says. */
const defaultMaxTokens = 8192;

/** What no model can have said of a context that did not fit. */
const impossible: Likelihood = [Number.NEGATIVE_INFINITY, false];

export class Answerer {
  #done = 0;

  constructor(
    private readonly model: LanguageModel,
    private readonly tokenizer: Tokenizer,
    private readonly options: AnswerOptions,
  ) {}

  /**
   * The answers, in the order of the requests.
   * @returns null where it was interrupted
   */
  async answer(requests: readonly Request[]): Promise<Answer[] | null> {
    const { cache, onProgress, signal } = this.options;
    const answers: (Answer | undefined)[] = requests.map((_, i) => cache?.get(requests, i));
    this.#done = answers.filter((answer) => answer !== undefined).length;
    const set = (index: number, answer: Answer) => {
      answers[index] = answer;
      cache?.put(requests, index, answer);
      onProgress?.(++this.#done, requests.length);
    };
    const open = requests
      .map((request, index) => ({ request, index }))
      .filter(({ index }) => answers[index] === undefined);
    const of = <T extends Request["type"]>(type: T) =>
      open.filter((one): one is { request: Extract<Request, { type: T }>; index: number } => one.request.type === type);
    await this.#likelihoods(of("loglikelihood"), set);
    if (!signal?.aborted) await this.#rolling(of("loglikelihood_rolling"), set);
    if (!signal?.aborted) await this.#completions(of("generate_until"), set);
    mx.clearCache();
    return answers.includes(undefined) ? null : (answers as Answer[]);
  }

  #encode(texts: string[]): Promise<number[][]> {
    return this.tokenizer.encodeBatch(texts, { addSpecialTokens: !this.options.usesChatTemplate });
  }

  async #likelihoods(
    open: readonly { request: { context: string; continuation: string }; index: number }[],
    set: (index: number, answer: Answer) => void,
  ): Promise<void> {
    const { batchSize, maxTokens = defaultMaxTokens, signal } = this.options;
    const byContext = Map.groupBy(open, ({ request }) => request.context);
    const contexts = await this.#encode([...byContext.keys()]);
    const whole = await this.#encode(open.map(({ request }) => request.context + request.continuation));
    const tokensOf = new Map(open.map(({ index }, i) => [index, whole[i]!]));
    const groups: ContextGroup[] = [];
    for (const [i, members] of [...byContext.values()].entries()) {
      const context = contexts[i]!;
      const longest = Math.max(...members.map(({ index }) => tokensOf.get(index)!.length));
      const cut = Math.max(0, longest - maxTokens - 1);
      if (cut >= context.length) {
        for (const { index } of members) set(index, impossible);
        continue;
      }
      const continuations = members.map(({ index }) => ({ index, tokens: tokensOf.get(index)!.slice(context.length) }));
      groups.push({ context: context.slice(cut), continuations });
    }
    await scoreContinuations(this.model, groups, { batchSize, signal, onDone: set });
  }

  async #rolling(
    open: readonly { request: { text: string }; index: number }[],
    set: (index: number, answer: Answer) => void,
  ): Promise<void> {
    const { batchSize, signal } = this.options;
    const texts = await this.#encode(open.map(({ request }) => request.text));
    const onDone = (i: number, [score]: Likelihood) => set(open[i]!.index, score);
    await scoreTexts(this.model, texts, { batchSize, signal, onDone });
  }

  async #completions(
    open: readonly { request: { context: string; options: Record<string, unknown> }; index: number }[],
    set: (index: number, answer: Answer) => void,
  ): Promise<void> {
    const { batchSize, maxTokens, sampler, signal } = this.options;
    const prompts = await this.#encode(open.map(({ request }) => request.context));
    const requests = open.map(({ request: { options } }, i) => ({
      prompt: prompts[i]!,
      maxTokens: maxTokens ?? Number(options.max_gen_toks ?? defaultMaxTokens),
      until: [options.until ?? []].flat().map(String),
    }));
    const onDone = (i: number, text: string) => set(open[i]!.index, text);
    await completeTexts(this.model, this.tokenizer, requests, { batchSize, sampler, signal, onDone });
  }
}
