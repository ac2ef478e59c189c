/** Answers by a model alone. */
import type { LanguageModel } from "../models";
import { greedy } from "../sample";
import { endingTogether } from "./agreed-signal";
import { agreedSampler } from "./agreed-tokens";
import { generateSteps } from "./step";
import type { Step, Stepper, StepperOptions, StepRequest } from "./stepper";

/** One answer at a time, a token a step. Of several processes all make the same steps. */
export class LoneStepper implements Stepper {
  constructor(
    readonly model: LanguageModel,
    private readonly options: StepperOptions = {},
  ) {}

  steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    const sampler = agreedSampler(request.sampler ?? greedy);
    return endingTogether(request.signal, (signal) =>
      generateSteps(this.model, request.prompt, { ...this.options, ...request, sampler, signal }),
    );
  }

  dispose(): void {}
}
