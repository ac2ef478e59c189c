/**
 * Answers by a model that is divided among processes, where one of them is asked: it tells the others what to read, and each
 * makes the same steps. Only the first process draws tokens; the others get them from it.
 */
import type { Cache, LanguageModel } from "../../models";
import { dropsNothing, greedy } from "../../sample";
import { agreedTokens } from "../agreed-tokens";
import { type BatchGeneratorOptions, BatchStepper, type Joining, type Lead, type StepPlan } from "../batch";
import type { Step, Stepper, StepRequest } from "../stepper";
import { forgetAlike } from "./alike";
import { CachesElsewhere, elsewhere } from "./caches-elsewhere";
import { type Change, tell, tellPlainStep, told } from "./orders";

/** What the others hear ahead of the next step. */
class Changes {
  #queue: Change[] = [];
  readonly push = (change: Change) => void this.#queue.push(change);

  take(): Change[] {
    const taken = this.#queue;
    this.#queue = [];
    return taken;
  }
}

/** On the first process: answers side by side. Each step begins with an order to the others. */
export class LeadingBatchStepper implements Stepper {
  readonly #batch: BatchStepper;

  constructor(
    readonly model: LanguageModel,
    options: BatchGeneratorOptions,
  ) {
    const { completionBatchSize, prefillBatchSize, prefillStepSize } = options;
    tell({ type: "batch", completionBatchSize, prefillBatchSize, prefillStepSize });
    const lead = new BatchLead(forgetAlike(model));
    this.#batch = new BatchStepper(model, { ...options, lockstep: { lead, share: agreedTokens, told } });
  }

  steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    return this.#batch.steps(request);
  }

  dispose(): void {
    this.#batch.dispose();
  }
}

class BatchLead implements Lead {
  readonly #changes = new Changes();
  readonly #caches: CachesElsewhere;

  constructor(canCut: boolean) {
    this.#caches = new CachesElsewhere(this.#changes.push, canCut);
  }

  joins(sequence: Joining, cache: readonly Cache[] | null): void {
    this.#changes.push({ type: "join", sequence, cache: (cache && elsewhere(cache)?.number) ?? null });
  }

  leaves(ids: readonly number[]): void {
    this.#changes.push({ type: "leave", ids });
  }

  copied(id: number, cache: readonly Cache[]): void {
    this.#changes.push({ type: "extract", id });
    this.#caches.add(cache);
  }

  kept(cache: readonly Cache[]): void {
    this.#caches.add(cache);
  }

  begins(plan: StepPlan): void {
    const changes = this.#changes.take();
    const isPlain = changes.length === 0 && !plan.isHeld && plan.pace.every((count) => count === null);
    if (isPlain) tellPlainStep();
    else tell({ type: "step", changes, ...plan });
  }
}

/** On the first process: one answer at a time, by a stepper that all processes have. */
export class LeadingStepper implements Stepper {
  readonly model: LanguageModel;
  readonly #changes = new Changes();
  readonly #caches: CachesElsewhere;

  constructor(private readonly own: Stepper) {
    this.model = own.model;
    tell({ type: "alone" });
    this.#caches = new CachesElsewhere(this.#changes.push, forgetAlike(own.model));
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
    let step = await steps.next();
    try {
      for (; !step.done; step = await steps.next()) yield step.value;
    } finally {
      signal?.removeEventListener("abort", end);
      end();
      // Whoever leaves early: the others hear of it some steps later.
      while (!step.done) {
        step = await steps.next();
        if (!step.done) step.value.logprobs?.dispose();
      }
    }
  }

  #tell({ cache, ...request }: StepRequest): void {
    const { prompt, maxTokens, logprobs, stopTokens = [], cachedTokens = [], logitsProcessors = [] } = request;
    const { form = null, constraint, sampler = greedy } = request;
    if (constraint && !form) throw new Error("the other processes need to know what the answer is held to");
    if (cache && !elsewhere(cache)) this.#caches.make(cache);
    tell({
      type: "answer",
      changes: this.#changes.take(),
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
    this.own.dispose();
  }
}
