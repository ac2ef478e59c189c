/** Continuous batching: sequences join while others are being answered, and leave when they end. */
import * as mx from "../../mlx";
import type { Cache, LanguageModel } from "../../models";
import { withWiredLimit } from "../../models/wired";
import { greedy } from "../../sample";
import type { Constraint } from "../../sample/grammar/constraint";
import type { AdapterPool } from "../../tune/adapter-pool";
import { acceptChosen } from "../masks";
import { usualStepSize } from "../prefill";
import { type FailureEvent, GenerationBatch, type TokenEvent } from "./generation-batch";
import { disposeLayers } from "./layers";
import type { Lead, Lockstep } from "./lockstep";
import { BatchModel } from "./model";
import { PromptBatch } from "./prompt-batch";
import { type BatchRequest, checkRequest, Sequence } from "./sequence";

export interface BatchGeneratorOptions {
  /** How many sequences are answered at a time. */
  completionBatchSize?: number;
  /** How many prompts are read at a time. */
  prefillBatchSize?: number;
  /** How many tokens of each prompt are read at a time. */
  prefillStepSize?: number;
  /** How many tokens of all prompts are read in a step, given the work so far; no limit where absent. */
  promptPace?: (work: Readonly<BatchWork>, isAnswering: boolean) => number;
  /** Keep only so many tokens of layers that attend to all. */
  maxKvSize?: number | null;
  /** Start no further sequence while the caches have more bytes than this, unless there is no other. */
  maxCacheBytes?: number;
  /** Adapters on the model, of which each sequence may have one. */
  adapters?: AdapterPool;
  /** Other processes that make the same steps. */
  lockstep?: Lockstep;
}

export interface PrefillEvent {
  type: "prefill";
  id: number;
  /** How many of the prompt's tokens have been read, and how many there are. */
  done: number;
  total: number;
}

export type BatchEvent = PrefillEvent | TokenEvent | FailureEvent;

/** Work since the generator began; times in seconds. */
export interface BatchWork {
  promptTokens: number;
  promptTime: number;
  generationTokens: number;
  generationSteps: number;
  generationTime: number;
}

interface Waiting {
  sequence: Sequence;
  cache: readonly Cache[] | null;
}

const stepsPerCleanup = 512;

/**
 * `add` requests at any time, call `step` until it has no more to do, and `dispose` at the end. Each sequence gets the
 * tokens that it would get alone.
 */
export class BatchGenerator {
  readonly work: BatchWork = {
    promptTokens: 0,
    promptTime: 0,
    generationTokens: 0,
    generationSteps: 0,
    generationTime: 0,
  };

  #ids = 0;
  #waiting: Waiting[] = [];
  #generation: GenerationBatch | null = null;
  readonly #prompts: PromptBatch;
  readonly #options: Required<Omit<BatchGeneratorOptions, "adapters" | "lockstep">>;
  /** Where other processes make the same steps: what tells them. */
  readonly #lead: Lead | null;
  readonly #batched: BatchModel;
  readonly #restoreWiredLimit: () => void;
  #pace = (isAnswering: boolean) => this.#options.promptPace(this.work, isAnswering);

  constructor(
    private readonly model: LanguageModel,
    options: BatchGeneratorOptions = {},
  ) {
    const { completionBatchSize = 32, prefillBatchSize = 8, prefillStepSize = usualStepSize(model) } = options;
    const { maxKvSize = null, maxCacheBytes = Number.POSITIVE_INFINITY } = options;
    const { promptPace = () => Number.POSITIVE_INFINITY } = options;
    this.#options = {
      completionBatchSize: Math.max(completionBatchSize, prefillBatchSize),
      prefillBatchSize,
      prefillStepSize,
      promptPace,
      maxKvSize,
      maxCacheBytes,
    };
    this.#lead = options.lockstep?.lead ?? null;
    this.#batched = new BatchModel(model, options.adapters, options.lockstep);
    this.#prompts = new PromptBatch(this.#batched, prefillStepSize);
    this.#restoreWiredLimit = withWiredLimit();
  }

  /**
   * Queues a request and returns its id.
   * @throws UserError for an empty prompt, token ids that the model does not know, or no tokens to generate
   */
  add(request: BatchRequest): number {
    checkRequest(request, this.model.vocabSize);
    const { prompt, maxTokens = 128, sampler = greedy, logitsProcessors = [], stop = [], boundaries = [] } = request;
    const {
      cache = null,
      cachedTokens = [],
      logprobs = false,
      keepCache = false,
      constraint = null,
      adapter = null,
    } = request;
    const opening = logprobs ? [] : openingOf(constraint, maxTokens);
    const wanted = {
      ...{ prompt: [...prompt, ...opening], opening, maxTokens, sampler, logitsProcessors, constraint, adapter },
      ...{ stop, boundaries, logprobs, keepCache },
    };
    const sequence = new Sequence(this.#ids++, [...cachedTokens], wanted);
    this.#waiting.push({ sequence, cache });
    const told = { prompt: wanted.prompt, maxTokens: maxTokens - opening.length, stop, boundaries, keepCache };
    this.#lead?.joins(told, cache, adapter);
    return sequence.id;
  }

  /** Drops sequences, wherever they are. */
  remove(ids: readonly number[]): void {
    const gone = new Set(ids);
    this.#lead?.leaves(ids);
    this.#waiting = this.#waiting.filter(({ sequence }) => !gone.has(sequence.id));
    const stays = ({ id }: Sequence) => !gone.has(id);
    this.#prompts.filter(stays);
    this.#generation?.filter(stays);
    this.#settle();
  }

  /** A copy of a running sequence's cache and the tokens in it, or null; the caller disposes of the cache. */
  extract(id: number): { cache: Cache[]; tokens: number[] } | null {
    for (const batch of [this.#prompts, this.#generation]) {
      const sequence = batch?.sequences.find((one) => one.id === id);
      if (!sequence) continue;
      const cache = batch!.extract(id)!;
      this.#lead?.copied(id, cache);
      return { cache, tokens: [...sequence.tokens] };
    }
    return null;
  }

  /** How many sequences wait or run. */
  get size(): number {
    return this.#waiting.length + this.#prompts.sequences.length + this.#answering;
  }

  /** Bytes of all caches. */
  get nbytes(): number {
    return this.#prompts.nbytes + (this.#generation?.nbytes ?? 0);
  }

  get #answering(): number {
    return this.#generation?.sequences.length ?? 0;
  }

  /** One token of each sequence that is being answered, and a chunk of each prompt that is being read. */
  step(): BatchEvent[] {
    this.#begins();
    const events: BatchEvent[] = this.#decode();
    if (this.#answering >= this.#options.completionBatchSize) return events;
    this.#admit();
    events.push(...this.#begin());
    events.push(...this.#read());
    return events;
  }

  /** Tells the other processes. */
  #begins(): void {
    if (!this.#lead) return;
    // Asked once, for times differ between processes.
    const { promptPace } = this.#options;
    const [beside, alone] = [promptPace(this.work, true), promptPace(this.work, false)];
    this.#pace = (isAnswering) => (isAnswering ? beside : alone);
    const isReading = this.#waiting.length > 0 || this.#prompts.sequences.length > 0;
    const told = (count: number) => (isReading && Number.isFinite(count) ? count : null);
    const { isHeld = false, isLate = false } = this.#generation ?? {};
    this.#lead.begins({ isHeld, isLate, pace: [told(beside), told(alone)] });
  }

  #decode(): (TokenEvent | FailureEvent)[] {
    if (!this.#generation) return [];
    const began = performance.now();
    const events = this.#generation.step();
    for (const event of events) if (event.type === "token" && event.cache) this.#lead?.kept(event.cache);
    this.#settle();
    this.work.generationTime += (performance.now() - began) / 1000;
    this.work.generationTokens += events.length;
    this.work.generationSteps += 1;
    if (this.work.generationSteps % stepsPerCleanup === 0) mx.clearSurplus();
    return events;
  }

  /** Moves waiting sequences to the prompts, as far as there is room. */
  #admit(): void {
    const { prefillBatchSize, completionBatchSize, maxKvSize, maxCacheBytes } = this.#options;
    const running = this.#prompts.sequences.length + this.#answering;
    if (running > 0 && this.nbytes > maxCacheBytes) return;
    const room = Math.min(prefillBatchSize - this.#prompts.sequences.length, completionBatchSize - running);
    const admitted = this.#waiting.splice(0, Math.max(room, 0));
    const made = admitted.map(({ cache }) => cache ?? this.model.makeCache({ maxSize: maxKvSize }));
    try {
      this.#prompts.add(
        admitted.map(({ sequence }) => sequence),
        made,
      );
    } finally {
      for (const [i, { cache }] of admitted.entries()) if (!cache) disposeLayers(made[i]!);
    }
  }

  /** Begins to answer the prompts that are read. */
  #begin(): BatchEvent[] {
    const read = this.#prompts.takeRead();
    if (!read) return [];
    const began = performance.now();
    const batch = new GenerationBatch(this.#batched, read.sequences, read.layers);
    if (this.#generation) this.#generation.extend(batch);
    else this.#generation = batch;
    this.work.generationTime += (performance.now() - began) / 1000;
    this.work.promptTokens += read.sequences.length;
    return read.sequences.flatMap((sequence): BatchEvent[] => {
      const { id, prompt, opening } = sequence;
      const forced = opening.map((token) => ({
        type: "token" as const,
        id,
        token,
        logprobs: null,
        finishReason: null,
      }));
      return [{ type: "prefill", id, ...sequence.progress(prompt.length) }, ...forced];
    });
  }

  #read(): PrefillEvent[] {
    if (this.#prompts.sequences.length === 0) return [];
    const began = performance.now();
    this.work.promptTokens += this.#prompts.feed(this.#pace(this.#answering > 0));
    this.work.promptTime += (performance.now() - began) / 1000;
    return this.#prompts.sequences.map((sequence) => ({ type: "prefill", id: sequence.id, ...sequence.progress() }));
  }

  /** Forgets a batch that has no sequences any more. */
  #settle(): void {
    if (this.#generation?.sequences.length === 0) this.#generation = null;
  }

  dispose(): void {
    this.#waiting = [];
    this.#prompts.sequences = [];
    this.#prompts.dispose();
    this.#generation?.dispose();
    this.#generation = null;
    this.#restoreWiredLimit();
  }
}

/** The text that an answer must begin with, as tokens that its grammar has gone along with. One token is left to choose. */
function openingOf(constraint: Constraint | null, maxTokens: number): readonly number[] {
  const opening = constraint?.forced().slice(0, maxTokens - 1) ?? [];
  for (const token of opening) acceptChosen(constraint, token);
  return opening;
}
