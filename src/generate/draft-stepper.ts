/** Answers by a model with a draft model. */
import type { LanguageModel } from "../models";
import { speculativeSteps } from "./speculative";
import type { Step, Stepper, StepperOptions, StepRequest } from "./stepper";

/** One answer at a time, several tokens a step where a smaller model guesses them. */
export class DraftStepper implements Stepper {
  constructor(
    readonly model: LanguageModel,
    private readonly draft: { model: LanguageModel; tokens: number },
    private readonly options: StepperOptions = {},
  ) {}

  steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    const options = { ...this.options, ...request, numDraftTokens: this.draft.tokens };
    return speculativeSteps(this.model, this.draft.model, request.prompt, options);
  }

  dispose(): void {}
}
