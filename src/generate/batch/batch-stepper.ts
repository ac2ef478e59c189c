/** Answers side by side: they join and leave a batch that runs as long as any of them waits for a token. */
import { ExitCode, UserError } from "../../errors";
import type { LanguageModel } from "../../models";
import { dispose } from "../prefix-store";
import type { Step, Stepper, StepRequest } from "../stepper";
import type { TokenEvent } from "./generation-batch";
import { type BatchEvent, BatchGenerator, type BatchGeneratorOptions } from "./generator";

/** One sequence's place between the batch and who reads it. */
interface Line {
  /** Tokens that have not been read. */
  events: TokenEvent[];
  /** Set while the reader waits. */
  wake: (() => void) | null;
  /** Why it gets no more tokens. */
  failure: { error: unknown } | null;
  onPrefill: (done: number, total: number) => void;
}

/** As high as a count goes: no limit. */
const boundless = Number.MAX_SAFE_INTEGER;

/**
 * Each sequence gets the tokens that it would get alone, if its sampler and logits processors are its own. Those that
 * share a sampler are drawn together.
 */
export class BatchStepper implements Stepper {
  readonly #generator: BatchGenerator;
  readonly #lines = new Map<number, Line>();
  #running = false;
  /** How many sequences have asked so far. */
  #asked = 0;

  constructor(
    readonly model: LanguageModel,
    private readonly options: BatchGeneratorOptions = {},
  ) {
    this.#generator = new BatchGenerator(model, options);
  }

  /** How many sequences wait or run. */
  get size(): number {
    return this.#generator.size;
  }

  async *steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    const {
      prompt,
      maxTokens = 256,
      sampler,
      logitsProcessors,
      constraint,
      adapter,
      logprobs,
      cachedTokens,
      cache,
      signal,
      onEnd,
    } = request;
    if (request.inputEmbeddings) {
      throw new UserError("input embeddings do not go with a batch", {
        code: ExitCode.usage,
        hint: "Answer such a prompt alone.",
      });
    }
    if (signal?.aborted) {
      if (cache) onEnd?.(cache, cachedTokens ?? []);
      return;
    }
    this.#asked++;
    const id = this.#generator.add({
      ...{ prompt, sampler, logitsProcessors, constraint, adapter, logprobs, cache, cachedTokens },
      boundaries: request.onBoundary && request.boundaries,
      maxTokens: maxTokens < 0 ? boundless : maxTokens,
      stop: [...(request.stopTokens ?? [])].map((token) => [token]),
      keepCache: onEnd !== undefined,
    });
    const onPrefill = (done: number, total: number) => {
      try {
        request.onPrefill?.(done, total);
        if (done > 0 && done < total && request.onBoundary && request.boundaries?.includes(done)) {
          const { cache, tokens } = this.#generator.extract(id)!;
          request.onBoundary(cache, tokens);
        }
      } catch (error) {
        // The others in the batch have no part in it.
        line.failure = { error };
        line.wake?.();
      }
    };
    const line: Line = { events: [], wake: null, failure: null, onPrefill };
    this.#lines.set(id, line);
    const interrupt = () => line.wake?.();
    signal?.addEventListener("abort", interrupt);
    let last: TokenEvent | null = null;
    try {
      onPrefill(0, prompt.length);
      while (!last?.finishReason && !signal?.aborted) {
        const event = line.events.shift();
        if (event) {
          last = event;
          yield { token: event.token, logprobs: event.logprobs, fromDraft: false };
        } else if (line.failure) throw line.failure.error;
        else await this.#next(line);
      }
    } finally {
      signal?.removeEventListener("abort", interrupt);
      this.#lines.delete(id);
      for (const event of line.events) event.logprobs?.dispose();
      const ended = last?.finishReason ? last : line.events.find(({ finishReason }) => finishReason);
      if (!line.failure) this.#settle(id, ended, request);
      this.#generator.remove([id]);
    }
  }

  /** Hands over the cache of a sequence that has ended, or that is given up. */
  #settle(id: number, ended: TokenEvent | undefined, { cache, cachedTokens = [], onEnd }: StepRequest): void {
    if (!onEnd) return;
    if (ended) {
      onEnd(ended.cache!, ended.tokens!);
      return;
    }
    const taken = this.#generator.extract(id);
    if (taken) onEnd(taken.cache, taken.tokens);
    // It was still waiting.
    else if (cache) onEnd(cache, cachedTokens);
  }

  /** Until there is news for a line. */
  #next(line: Line): Promise<void> {
    return new Promise((resolve) => {
      line.wake = () => {
        line.wake = null;
        resolve();
      };
      if (!this.#running) void this.#run();
    });
  }

  /** Steps as long as anyone waits. */
  async #run(): Promise<void> {
    this.#running = true;
    try {
      await this.#gather();
      const { lead } = this.options.lockstep ?? {};
      while (this.#waiting()) {
        if (lead) await lead.inTurn(this.#step);
        else this.#step();
        await this.#gather();
      }
    } catch (error) {
      this.options.lockstep?.lead?.failed(error);
      for (const line of this.#lines.values()) {
        line.failure = { error };
        line.wake?.();
      }
    } finally {
      this.#running = false;
    }
  }

  readonly #step = (): void => {
    // Who waited for a turn may have gone meanwhile, and the model with them.
    if (this.#waiting()) for (const event of this.#generator.step()) this.#pass(event);
  };

  /**
   * Lets whoever waits for a token take it, leave or ask anew, before the next step. Requests that come together take a few
   * turns until all have asked; a step for each of them would take far longer.
   */
  async #gather(): Promise<void> {
    const end = performance.now() + longestGathering;
    let asked: number;
    do {
      asked = this.#asked;
      await turn();
    } while (this.#asked > asked && performance.now() < end);
  }

  #waiting(): boolean {
    for (const { wake } of this.#lines.values()) if (wake) return true;
    return false;
  }

  #pass(event: BatchEvent): void {
    const line = this.#lines.get(event.id);
    if (event.type === "prefill") line?.onPrefill(event.done, event.total);
    else if (event.type === "failure") {
      if (line) line.failure = event;
      line?.wake?.();
    } else if (line) {
      line.events.push(event);
      line.wake?.();
    } else {
      event.logprobs?.dispose();
      if (event.cache) dispose(event.cache);
    }
  }

  dispose(): void {
    this.#generator.dispose();
  }
}

/** Milliseconds. */
const longestGathering = 20;

/** A macrotask. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
