/**
 * Answers by a model that is divided among processes, where one of them is asked: it tells the others what to read, and each
 * makes the same steps. Only the first process draws tokens; the others get them from it.
 */
import { ExitCode, UserError } from "../errors";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { broadcast, broadcastJson } from "../mlx/group-messages";
import type { LanguageModel } from "../models";
import { greedy, type Sampler } from "../sample";
import { endingTogether } from "./agreed-signal";
import { BatchGenerator, type BatchGeneratorOptions, BatchStepper, type StepPlan } from "./batch";
import { generateSteps } from "./step";
import type { Step, Stepper, StepperOptions, StepRequest } from "./stepper";

/** How a batch runs, the same on all. */
type BatchSizes = Pick<BatchGeneratorOptions, "completionBatchSize" | "prefillBatchSize" | "prefillStepSize">;

type Order =
  /** Open the model, in place of the one before. */
  | { type: "open" }
  | ({ type: "answer" } & Pick<StepRequest, "prompt" | "maxTokens"> & { stopTokens: number[] })
  /** Answer side by side from now on. */
  | ({ type: "batch" } & BatchSizes)
  /** Make a step of the batch; an order without a word is one in which nobody joins or leaves. */
  | ({ type: "step" } & StepPlan)
  | { type: "end" };

const everyone = () => mx.distributed.init({ strict: true });

/** What the first process draws, on all of them. */
function sharedSampler(own: Sampler): Sampler {
  const group = everyone();
  return (logprobs) => {
    const none = () => mx.depends([mx.zeros([logprobs.dim(0)], "uint32")], [logprobs])[0]!;
    // It must wait for the model here too: nothing else would have it computed.
    const tokens = group.rank === 0 ? own(logprobs).astype("uint32") : none();
    return mx.distributed.allSum(tokens, { group });
  };
}

/** What the first process has chosen, on all of them. */
function shared(tokens: Tensor): Tensor {
  const group = everyone();
  const own = tokens.astype("uint32");
  // The others wait for the model too: nothing else would have it computed.
  const told = group.rank === 0 ? own : mx.depends([mx.zerosLike(own)], [own])[0]!;
  return mx.distributed.allSum(told, { group });
}

/** Tells the other processes. Each order is heard by all that `follow`. */
function tell(order: Order): void {
  broadcastJson(everyone(), order);
}

/** Has the others open the model; this process opens it too. */
export const tellOpening = () => tell({ type: "open" });

/** Lets the others end. */
export const tellEnd = () => tell({ type: "end" });

/** @throws UserError for what ranks cannot do */
function checkRequest({ constraint, inputEmbeddings }: StepRequest): void {
  if (!constraint && !inputEmbeddings) return;
  throw new UserError("answers in a form, and images, do not go with several ranks yet", {
    code: ExitCode.usage,
    hint: "Leave them out, or start the server without mlxlm launch.",
  });
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
    const announce = (plan: StepPlan) => {
      const isPlain = plan.joining.length + plan.leaving.length === 0 && plan.pace.every((count) => count === null);
      if (isPlain) broadcast(everyone(), new Uint8Array(0));
      else tell({ type: "step", ...plan });
    };
    this.#batch = new BatchStepper(model, { ...options, lockstep: { announce, share: shared } });
  }

  async *steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    checkRequest(request);
    // The others keep no prompts, so that nobody halts to keep one.
    yield* this.#batch.steps({ ...request, boundaries: undefined, onBoundary: undefined });
  }

  dispose(): void {
    this.#batch.dispose();
  }
}

/** On the first process: one answer at a time. */
export class LeadingStepper implements Stepper {
  constructor(
    readonly model: LanguageModel,
    private readonly options: StepperOptions = {},
  ) {}

  async *steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    const { prompt, maxTokens, stopTokens = new Set(), sampler = greedy, signal } = request;
    checkRequest(request);
    if (signal?.aborted) return;
    tell({ type: "answer", prompt: [...prompt], maxTokens, stopTokens: [...stopTokens] });
    const ending = new AbortController();
    const end = () => ending.abort();
    signal?.addEventListener("abort", end);
    const own = { ...this.options, ...request, sampler: sharedSampler(sampler), boundaries: undefined };
    const steps = endingTogether(ending.signal, (signal) => generateSteps(this.model, prompt, { ...own, signal }));
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

  dispose(): void {}
}

/** On the other processes: does what the first one says, until it says that this is the end. */
export async function follow(open: () => Promise<LanguageModel>, options: StepperOptions = {}): Promise<void> {
  let model: LanguageModel | null = null;
  let batch: FollowingBatch | null = null;
  const leaveBatch = () => {
    batch?.dispose();
    batch = null;
  };
  try {
    while (true) {
      const order = heard();
      if (order === null || order.type === "step") {
        batch!.step(order);
        // What ends this process is heard between two steps.
        await breathe();
      } else if (order.type === "end") return;
      else if (order.type === "open") {
        leaveBatch();
        model?.dispose();
        model = await open();
      } else if (order.type === "batch") {
        leaveBatch();
        batch = new FollowingBatch(model!, order);
      } else {
        const { prompt, maxTokens } = order;
        const own = { ...options, maxTokens, stopTokens: new Set(order.stopTokens), sampler: sharedSampler(greedy) };
        const steps = endingTogether(undefined, (signal) => generateSteps(model!, prompt, { ...own, signal }));
        for await (const { logprobs } of steps) logprobs?.dispose();
      }
    }
  } finally {
    leaveBatch();
    model?.dispose();
  }
}

/** The next order; null for a step in which nobody joins or leaves. */
function heard(): Order | null {
  const bytes = broadcast(everyone(), null);
  return bytes.length === 0 ? null : JSON.parse(new TextDecoder().decode(bytes));
}

/** The batch of a process that is not the first. */
class FollowingBatch {
  readonly #generator: BatchGenerator;
  /** How much of prompts is read in the step under way. */
  #pace: StepPlan["pace"] = [null, null];

  constructor(model: LanguageModel, sizes: BatchSizes) {
    const promptPace = (_: unknown, isAnswering: boolean) =>
      this.#pace[isAnswering ? 0 : 1] ?? Number.POSITIVE_INFINITY;
    this.#generator = new BatchGenerator(model, { ...sizes, promptPace, lockstep: { share: shared } });
  }

  step(plan: StepPlan | null): void {
    for (const joining of plan?.joining ?? []) this.#generator.add(joining);
    if (plan && plan.leaving.length > 0) this.#generator.remove(plan.leaving);
    this.#pace = plan?.pace ?? [null, null];
    // Without log-probabilities and caches, what it gives holds nothing.
    this.#generator.step();
  }

  dispose(): void {
    this.#generator.dispose();
  }
}
