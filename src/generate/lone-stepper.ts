/** Answers by a model alone. */
import type { LanguageModel } from "../models";
import { endingTogether } from "./agreed-signal";
import { generateSteps } from "./step";
import type { Step, Stepper, StepperOptions, StepRequest } from "./stepper";

/** One answer at a time, a token a step. */
export class LoneStepper implements Stepper {
  constructor(
    readonly model: LanguageModel,
    private readonly options: StepperOptions = {},
  ) {}

  steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    return endingTogether(request.signal, (signal) =>
      generateSteps(this.model, request.prompt, { ...this.options, ...request, signal }),
    );
  }

  dispose(): void {}
}
