/** Who is answered, and when: a bounded queue in front of one model, and places in its batch as memory allows. */
import { BatchStepper } from "../../generate/batch";
import { DraftStepper, type Drafts } from "../../generate/draft-stepper";
import type { KvQuantizationOptions } from "../../generate/kv-quantization";
import { LoneStepper } from "../../generate/lone-stepper";
import { LeadingBatchStepper, LeadingLoneStepper, LeadingStepper, type LeadingSteps } from "../../generate/ranks/lead";
import type { Stepper } from "../../generate/stepper";
import { isLaunched } from "../../mlx/group-environment";
import type { LanguageModel } from "../../models";
import { kindOf } from "../../nn";
import type { AdapterPool } from "../../tune/adapter-pool";
import { ApiError } from "../api-error";
import { CacheSizes } from "./cache-sizes";
import type { MemoryBudget } from "./memory-budget";
import { adaptivePace } from "./pace";

export interface SchedulerOptions {
  budget: MemoryBudget;
  /** How many are answered side by side. */
  decodeConcurrency?: number;
  /** How many prompts are read side by side. */
  promptConcurrency?: number;
  prefillStepSize?: number;
  /** How many may wait. */
  maxQueue?: number;
  /** Pack the KV cache; then requests are answered one after the other. */
  kvQuantization?: KvQuantizationOptions;
  /** Who proposes tokens; then requests are answered one after the other. */
  draft?: Drafts | null;
  /** Adapters on the model: in a batch each sequence may have another one. */
  adapters?: AdapterPool;
  /** Gives back memory that is held only in case it is of use: so many bytes, if it can. */
  onShort?: (bytes: number) => void;
}

/** A request's place: held until it is left. */
export interface Place {
  leave(): void;
}

interface Ticket {
  /** Tokens at its end, at most: those of the prompt and of the answer. */
  tokens: number;
  since: number;
  overtaken: number;
  admit(): void;
}

/** Tokens of an answer that memory is kept free for. Few answers are as long as they may be. */
const likelyAnswer = 2048;

/** A request that there is no memory for lets so many pass that there is memory for. */
const mostOvertaken = 16;

/** Seconds that an answer takes, until that is known. */
const usual = 5;

/** Transient copies of caches, as sequences join and leave. */
const copies = 1.25;

export class Scheduler {
  readonly stepper: Stepper | LeadingSteps;
  /** For what no batch takes: one answer beside the others. */
  readonly lone: Stepper;
  /** Whether several are answered side by side. */
  readonly isBatched: boolean;
  /** When the engine last gave a sign of life, by `performance.now()`. */
  heartbeat = performance.now();

  readonly #sizes: CacheSizes;
  readonly #concurrency: number;
  readonly #maxQueue: number;
  readonly #running = new Set<Ticket>();
  readonly #queue: Ticket[] = [];
  #seconds = usual;
  #onQuiet: (() => void)[] = [];

  constructor(
    readonly model: LanguageModel,
    private readonly options: SchedulerOptions,
  ) {
    const { decodeConcurrency = 32, promptConcurrency = 8, prefillStepSize, kvQuantization, draft } = options;
    this.#sizes = new CacheSizes(model);
    this.#maxQueue = options.maxQueue ?? 256;
    this.isBatched = !draft && !kvQuantization && canBatch(model);
    this.#concurrency = this.isBatched ? decodeConcurrency : 1;
    const lone = new LoneStepper(model, { prefillStepSize, kvQuantization });
    this.lone = isLaunched() ? new LeadingLoneStepper(lone) : lone;
    if (!this.isBatched) {
      const alone = steppingAlone(model, options);
      this.stepper = isLaunched() ? new LeadingStepper(alone) : alone;
    } else {
      const [completionBatchSize, prefillBatchSize] = [
        decodeConcurrency,
        Math.min(promptConcurrency, decodeConcurrency),
      ];
      const { adapters } = options;
      const batch = { adapters, completionBatchSize, prefillBatchSize, prefillStepSize, promptPace: adaptivePace() };
      // Ranks make the same steps.
      this.stepper = isLaunched() ? new LeadingBatchStepper(model, batch) : new BatchStepper(model, batch);
    }
  }

  get running(): number {
    return this.#running.size;
  }

  get waiting(): number {
    return this.#queue.length;
  }

  /** Seconds since the engine's last sign of life while it has work; 0 where it has none. */
  get silence(): number {
    return this.#running.size === 0 ? 0 : (performance.now() - this.heartbeat) / 1000;
  }

  /** Until no answer runs. */
  async quiet(): Promise<void> {
    if (this.#running.size > 0) await new Promise<void>((resolve) => this.#onQuiet.push(resolve));
  }

  beat(): void {
    this.heartbeat = performance.now();
  }

  /**
   * Whether so many requests can be taken now.
   * @throws ApiError 429 where the queue has no room for them, 400 for one that the memory never has room for
   */
  check(prompt: number, maxTokens: number, count = 1): void {
    const tokens = lengthOf(prompt, maxTokens);
    const [needed, free] = [this.#sizes.of(tokens), this.options.budget.limit - this.options.budget.weights];
    if (needed > free) {
      const sizes = `${gigabytes(needed)} of memory for their cache, and ${gigabytes(free)} are free`;
      throw new ApiError(400, `${tokens} tokens need ${sizes}`, { code: "context_length_exceeded" });
    }
    const places = Math.max(0, this.#concurrency - this.#running.size);
    if (this.#queue.length + count <= places + this.#maxQueue) return;
    throw new ApiError(429, `${this.#queue.length} requests are waiting: there is no room for another`, {
      code: "queue_full",
      retryAfter: this.#patience(),
    });
  }

  /** Waits for a place. Where the signal aborts meanwhile, it is had at once: the answer then ends before it begins. */
  async enter(prompt: number, maxTokens: number, signal?: AbortSignal): Promise<Place> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const ticket: Ticket = {
      ...{ tokens: lengthOf(prompt, maxTokens), since: performance.now(), overtaken: 0 },
      admit: resolve,
    };
    this.#queue.push(ticket);
    this.#admit();
    const giveUp = () => {
      const at = this.#queue.indexOf(ticket);
      if (at >= 0) this.#queue.splice(at, 1);
      resolve();
    };
    if (signal?.aborted) giveUp();
    signal?.addEventListener("abort", giveUp);
    await promise;
    signal?.removeEventListener("abort", giveUp);
    return { leave: () => this.#leave(ticket) };
  }

  #leave(ticket: Ticket): void {
    if (!this.#running.delete(ticket)) return;
    const seconds = (performance.now() - ticket.since) / 1000;
    this.#seconds += (seconds - this.#seconds) / 16;
    this.#hold();
    this.#admit();
    if (this.#running.size === 0) for (const resolve of this.#onQuiet.splice(0)) resolve();
  }

  /** First come, first served, unless the first needs more memory than there is now and a later one does not. */
  #admit(): void {
    for (let i = 0; i < this.#queue.length && this.#running.size < this.#concurrency; ) {
      const ticket = this.#queue[i]!;
      if (this.#hasRoom(ticket)) {
        for (const other of this.#queue.slice(0, i)) other.overtaken++;
        this.#queue.splice(i, 1);
        if (this.#running.size === 0) this.beat();
        this.#running.add(ticket);
        this.#hold();
        ticket.admit();
      } else if (ticket.overtaken >= mostOvertaken) return;
      else i++;
    }
  }

  #hasRoom(ticket: Ticket): boolean {
    const { budget, onShort } = this.options;
    const bytes = this.#bytes([...this.#running, ticket]);
    if (budget.lacking(this, bytes) > 0) onShort?.(budget.lacking(this, bytes));
    // Alone it is let in: it fits, as `check` has said, and waiting would make no more room.
    return this.#running.size === 0 || budget.lacking(this, bytes) <= 0;
  }

  /** A batch's caches are as long as the longest of its sequences. */
  #bytes(tickets: readonly Ticket[]): number {
    if (tickets.length === 0) return 0;
    const longest = Math.max(...tickets.map(({ tokens }) => tokens));
    return this.#sizes.of(longest) * tickets.length * (tickets.length > 1 ? copies : 1);
  }

  #hold(): void {
    this.options.budget.hold(this, this.#bytes([...this.#running]));
  }

  /** Seconds until a place should be free. */
  #patience(): number {
    const rounds = this.#queue.length / this.#concurrency;
    return Math.min(60, Math.max(1, Math.ceil(rounds * this.#seconds)));
  }

  dispose(): void {
    this.stepper.dispose();
    this.options.budget.hold(this, 0);
  }
}

/** Answers one after the other, with drafts where there are any. */
export const steppingAlone = (
  model: LanguageModel,
  { draft, prefillStepSize, kvQuantization }: Pick<SchedulerOptions, "draft" | "prefillStepSize" | "kvQuantization">,
): Stepper => {
  const settings = { prefillStepSize, kvQuantization };
  return draft ? new DraftStepper(model, draft, settings) : new LoneStepper(model, settings);
};

const lengthOf = (prompt: number, maxTokens: number) =>
  prompt + (maxTokens < 0 ? likelyAnswer : Math.min(maxTokens, likelyAnswer));

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;

/** Whether every layer's cache can hold several sequences. */
function canBatch(model: LanguageModel): boolean {
  const cache = model.makeCache();
  const can = cache.every((layer) => kindOf(layer)?.merge !== undefined);
  for (const layer of cache) layer.dispose();
  return can;
}
