/**
 * Answers by a model that is divided among processes, where one of them is asked: it tells the others what to read, and each
 * makes the same steps. Only the first process draws tokens; the others get them from it.
 */
import { broadcastTensor } from "../../mlx/group-messages";
import type { Cache, LanguageModel } from "../../models";
import { dropsNothing, greedy } from "../../sample";
import type { PooledAdapter } from "../../tune/adapter-pool";
import { agreedTokens } from "../agreed-tokens";
import { type BatchGeneratorOptions, BatchStepper, type Joining, type Lead, type StepPlan } from "../batch";
import { usualStepSize } from "../prefill";
import type { Step, Stepper, StepRequest } from "../stepper";
import { numberOfAdapter } from "./adapters";
import { forgetAlike } from "./alike";
import { CachesElsewhere, elsewhere } from "./caches-elsewhere";
import type { DividedCaches } from "./divided-caches";
import { LeadingAnswer } from "./leading-answer";
import { partWays, together } from "./lost";
import { type AnswerWay, type Change, everyone, numberOf, tell, tellStep, told } from "./orders";
import { inTurn } from "./turns";

/** Brings caches from files to all processes, and back. */
export interface CacheMover {
  /** Each process's part, or what it has of its own → all layers and heads. The caller disposes of them. */
  whole(own: readonly Cache[]): Promise<Cache[]>;
  /** All layers and heads → this process's part, as the others have theirs. The caller disposes of both. @throws UserError for those of another model */
  own(whole: readonly Cache[]): Promise<Cache[]>;
}

/** What the others hold of a model, and hear ahead of the next step. */
class Others {
  readonly caches: CachesElsewhere;
  readonly number: number;
  #changes: Change[] = [];

  constructor(model: LanguageModel) {
    this.number = numberOf(model);
    this.caches = new CachesElsewhere((change) => this.push(change), forgetAlike(model));
  }

  push(change: Change): void {
    this.#changes.push(change);
  }

  take(): Change[] {
    const taken = this.#changes;
    this.#changes = [];
    return taken;
  }

  /** @param divided the model's, on all processes */
  mover(divided: DividedCaches): CacheMover {
    const { number: model } = this;
    return {
      whole: (own) =>
        inTurn(() => {
          const { number: cache } = elsewhere(own)!;
          tell({ type: "gather", model, changes: this.take(), cache });
          return together(() => divided.gathered(own));
        }),
      own: async (whole) => {
        divided.checkWhole(whole);
        return await inTurn(() => {
          tell({ type: "spread", model, changes: this.take() });
          const own = together(() => divided.parts(whole));
          this.caches.add(own);
          return own;
        });
      },
    };
  }

  close(): void {
    tell({ type: "close", model: this.number });
  }
}

/** A stepper on the first of several processes. It is made and disposed of in turn; at its end the others free the model. */
export interface LeadingSteps extends Stepper {
  mover(divided: DividedCaches): CacheMover;
}

/** On the first process: answers side by side. Each step begins with an order to the others. */
export class LeadingBatchStepper implements LeadingSteps {
  readonly #batch: BatchStepper;
  readonly #others: Others;

  constructor(
    readonly model: LanguageModel,
    options: BatchGeneratorOptions,
  ) {
    const { completionBatchSize, prefillBatchSize, prefillStepSize = usualStepSize(model) } = options;
    tell({ type: "batch", model: numberOf(model), completionBatchSize, prefillBatchSize, prefillStepSize });
    this.#others = new Others(model);
    const lead = new BatchLead(this.#others);
    this.#batch = new BatchStepper(model, {
      ...options,
      prefillStepSize,
      lockstep: { lead, share: agreedTokens, told },
    });
  }

  steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    return this.#batch.steps(request);
  }

  mover(divided: DividedCaches): CacheMover {
    return this.#others.mover(divided);
  }

  dispose(): void {
    this.#others.close();
    this.#batch.dispose();
  }
}

class BatchLead implements Lead {
  readonly inTurn = inTurn;

  constructor(private readonly others: Others) {}

  joins(sequence: Joining, cache: readonly Cache[] | null, adapter: PooledAdapter | null): void {
    const number = (cache && elsewhere(cache)?.number) ?? null;
    this.others.push({ type: "join", sequence, cache: number, adapter: adapter && numberOfAdapter(adapter) });
  }

  leaves(ids: readonly number[]): void {
    this.others.push({ type: "leave", ids });
  }

  copied(id: number, cache: readonly Cache[]): void {
    this.others.push({ type: "extract", id });
    this.others.caches.add(cache);
  }

  kept(cache: readonly Cache[]): void {
    this.others.caches.add(cache);
  }

  begins(plan: StepPlan): void {
    tellStep({ type: "step", model: this.others.number, changes: this.others.take(), ...plan });
  }

  failed(error: unknown): void {
    partWays(error);
  }
}

/** Answers that all processes make, by a stepper that all have. */
class LeadingAnswers {
  constructor(
    private readonly own: Stepper,
    private readonly way: AnswerWay,
    /** What the others hold, where answers begin with caches. */
    private readonly others: Others | null = null,
  ) {}

  async *steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    const { cache, cachedTokens = [], signal, onEnd } = request;
    const ending = new AbortController();
    const end = () => ending.abort();
    signal?.addEventListener("abort", end);
    const answer = new LeadingAnswer(numberOf(this.own.model), (number) => {
      if (signal?.aborted) {
        if (cache) onEnd?.(cache, cachedTokens);
        return null;
      }
      this.#tell(number, request);
      return this.own.steps({ ...request, signal: ending.signal });
    });
    try {
      yield* answer.steps();
    } finally {
      signal?.removeEventListener("abort", end);
      end();
      // Whoever leaves early: the others hear of it some steps later.
      await answer.finish();
    }
  }

  #tell(answer: number, { cache, inputEmbeddings, ...request }: StepRequest): void {
    const { prompt, maxTokens, logprobs, stopTokens = [], cachedTokens = [], logitsProcessors = [] } = request;
    const { form = null, constraint, sampler = greedy } = request;
    if (constraint && !form) throw new Error("the other processes need to know what the answer is held to");
    if (cache && !elsewhere(cache)) this.others!.caches.make(cache);
    const embeddings = inputEmbeddings ? { shape: inputEmbeddings.shape, dtype: inputEmbeddings.dtype } : null;
    tell({
      ...{ type: "answer", model: numberOf(this.own.model), answer, way: this.way },
      changes: this.others?.take() ?? [],
      request: {
        ...{ prompt, maxTokens, logprobs, cachedTokens, stopTokens: [...stopTokens] },
        processors: logitsProcessors.length,
        drops: !dropsNothing(sampler),
        form: constraint ? form : null,
        cache: cache ? elsewhere(cache)!.number : null,
        embeddings,
      },
    });
    if (embeddings) broadcastTensor(everyone(), inputEmbeddings!, embeddings).dispose();
  }
}

/** On the first process: one answer at a time, by a stepper that all processes have. */
export class LeadingStepper implements LeadingSteps {
  readonly model: LanguageModel;
  readonly #others: Others;
  readonly #answers: LeadingAnswers;

  constructor(private readonly own: Stepper) {
    this.model = own.model;
    tell({ type: "alone", model: numberOf(own.model) });
    this.#others = new Others(own.model);
    this.#answers = new LeadingAnswers(own, "in turn", this.#others);
  }

  mover(divided: DividedCaches): CacheMover {
    return this.#others.mover(divided);
  }

  steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    return this.#answers.steps(request);
  }

  dispose(): void {
    this.#others.close();
    this.own.dispose();
  }
}

/** On the first process: answers beside those of the model's own stepper, each without a cache that is kept. */
export class LeadingLoneStepper implements Stepper {
  readonly model: LanguageModel;
  readonly #answers: LeadingAnswers;

  constructor(private readonly own: Stepper) {
    this.model = own.model;
    this.#answers = new LeadingAnswers(own, "beside");
  }

  steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    return this.#answers.steps(request);
  }

  dispose(): void {
    this.own.dispose();
  }
}
