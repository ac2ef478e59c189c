/**
 * Answers by a model that is divided among processes, where one of them is asked: it tells the others what to read, and each
 * makes the same steps. Only the first process draws tokens; the others get them from it.
 */
import { UserError } from "../../errors";
import type { Cache, LanguageModel } from "../../models";
import { dropsNothing, greedy } from "../../sample";
import { agreedTokens } from "../agreed-tokens";
import { type BatchGeneratorOptions, BatchStepper, type Joining, type Lead, type StepPlan } from "../batch";
import type { Step, Stepper, StepRequest } from "../stepper";
import { forgetAlike } from "./alike";
import { CachesElsewhere, elsewhere } from "./caches-elsewhere";
import type { DividedCaches } from "./divided-caches";
import { partWays, together } from "./lost";
import { type Change, tell, tellPlainStep, told } from "./orders";

/** Brings caches from files to all processes, and back. */
export interface CacheMover {
  /** Each process's part, or what it has of its own → all layers and heads. The caller disposes of them. */
  whole(own: readonly Cache[]): Cache[];
  /** All layers and heads → this process's part, as the others have theirs. The caller disposes of both. @throws UserError for those of another model */
  own(whole: readonly Cache[]): Cache[];
}

/** What the others hold, and hear ahead of the next step. */
class Others {
  readonly caches: CachesElsewhere;
  #changes: Change[] = [];

  constructor(model: LanguageModel) {
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
    return {
      whole: (own) => {
        tell({ type: "gather", changes: this.take(), cache: elsewhere(own)!.number });
        return together(() => divided.gathered(own));
      },
      own: (whole) => {
        divided.checkWhole(whole);
        tell({ type: "spread", changes: this.take() });
        const own = together(() => divided.parts(whole));
        this.caches.add(own);
        return own;
      },
    };
  }
}

/** A stepper on the first of several processes. At its end the others free the model. */
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
    const { completionBatchSize, prefillBatchSize, prefillStepSize } = options;
    tell({ type: "batch", completionBatchSize, prefillBatchSize, prefillStepSize });
    this.#others = new Others(model);
    const lead = new BatchLead(this.#others);
    this.#batch = new BatchStepper(model, { ...options, lockstep: { lead, share: agreedTokens, told } });
  }

  steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    return this.#batch.steps(request);
  }

  mover(divided: DividedCaches): CacheMover {
    return this.#others.mover(divided);
  }

  dispose(): void {
    tell({ type: "close" });
    this.#batch.dispose();
  }
}

class BatchLead implements Lead {
  constructor(private readonly others: Others) {}

  joins(sequence: Joining, cache: readonly Cache[] | null): void {
    this.others.push({ type: "join", sequence, cache: (cache && elsewhere(cache)?.number) ?? null });
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
    const changes = this.others.take();
    const isPlain = changes.length === 0 && !plan.isHeld && plan.pace.every((count) => count === null);
    if (isPlain) tellPlainStep();
    else tell({ type: "step", changes, ...plan });
  }

  failed(error: unknown): void {
    partWays(error);
  }
}

/** On the first process: one answer at a time, by a stepper that all processes have. */
export class LeadingStepper implements LeadingSteps {
  readonly model: LanguageModel;
  readonly #others: Others;

  constructor(private readonly own: Stepper) {
    this.model = own.model;
    tell({ type: "alone" });
    this.#others = new Others(own.model);
  }

  mover(divided: DividedCaches): CacheMover {
    return this.#others.mover(divided);
  }

  async *steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    const { cache, signal } = request;
    if (signal?.aborted) {
      if (cache) request.onEnd?.(cache, request.cachedTokens ?? []);
      return;
    }
    this.#tell(request);
    const ending = new AbortController();
    const end = () => ending.abort();
    signal?.addEventListener("abort", end);
    const steps = this.own.steps({ ...request, signal: ending.signal });
    const next = () =>
      steps.next().catch((error: unknown) => {
        // What is wrong with a request is so on all ranks.
        if (!(error instanceof UserError)) partWays(error);
        throw error;
      });
    let step = await next();
    try {
      for (; !step.done; step = await next()) yield step.value;
    } finally {
      signal?.removeEventListener("abort", end);
      end();
      // Whoever leaves early: the others hear of it some steps later.
      while (!step.done) {
        step = await next();
        if (!step.done) step.value.logprobs?.dispose();
      }
    }
  }

  #tell({ cache, ...request }: StepRequest): void {
    const { prompt, maxTokens, logprobs, stopTokens = [], cachedTokens = [], logitsProcessors = [] } = request;
    const { form = null, constraint, sampler = greedy } = request;
    if (constraint && !form) throw new Error("the other processes need to know what the answer is held to");
    if (cache && !elsewhere(cache)) this.#others.caches.make(cache);
    tell({
      type: "answer",
      changes: this.#others.take(),
      request: {
        ...{ prompt, maxTokens, logprobs, cachedTokens, stopTokens: [...stopTokens] },
        processors: logitsProcessors.length,
        drops: !dropsNothing(sampler),
        form: constraint ? form : null,
        cache: cache ? elsewhere(cache)!.number : null,
      },
    });
  }

  dispose(): void {
    tell({ type: "close" });
    this.own.dispose();
  }
}
