/**
 * Answers by a model that is divided among processes, where one of them is asked: it tells the others what to read, and each
 * makes the same steps. Only the first process draws tokens; the others get them from it.
 */
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import { broadcastJson } from "../mlx/group-messages";
import type { LanguageModel } from "../models";
import { greedy, type Sampler } from "../sample";
import { endingTogether } from "./agreed-signal";
import { generateSteps } from "./step";
import type { Step, Stepper, StepperOptions, StepRequest } from "./stepper";

type Order =
  /** Open the model, in place of the one before. */
  | { type: "open" }
  | ({ type: "answer" } & Pick<StepRequest, "prompt" | "maxTokens"> & { stopTokens: number[] })
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

/** Tells the other processes. Each order is heard by all that `follow`. */
function tell(order: Order): void {
  broadcastJson(everyone(), order);
}

/** Has the others open the model; this process opens it too. */
export const tellOpening = () => tell({ type: "open" });

/** Lets the others end. */
export const tellEnd = () => tell({ type: "end" });

/** On the first process: one answer at a time. */
export class LeadingStepper implements Stepper {
  constructor(
    readonly model: LanguageModel,
    private readonly options: StepperOptions = {},
  ) {}

  async *steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    const { prompt, maxTokens, stopTokens = new Set(), sampler = greedy, signal } = request;
    if (request.constraint || request.inputEmbeddings) {
      throw new UserError("answers in a form, and images, do not go with several ranks yet", {
        code: ExitCode.usage,
        hint: "Leave them out, or start the server without mlxlm launch.",
      });
    }
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
  try {
    while (true) {
      const order = broadcastJson<Order>(everyone(), null);
      if (order.type === "end") return;
      if (order.type === "open") {
        model?.dispose();
        model = await open();
        continue;
      }
      const { prompt, maxTokens } = order;
      const own = { ...options, maxTokens, stopTokens: new Set(order.stopTokens), sampler: sharedSampler(greedy) };
      const steps = endingTogether(undefined, (signal) => generateSteps(model!, prompt, { ...own, signal }));
      for await (const { logprobs } of steps) logprobs?.dispose();
    }
  } finally {
    model?.dispose();
  }
}
