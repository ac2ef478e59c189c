/** Answers by a model with drafts. */
import type { LanguageModel } from "../models";
import type { Drafter } from "./draft/drafter";
import { ModelDrafter } from "./draft/model-drafter";
import { NgramDrafter } from "./draft/ngram-drafter";
import { draftedSteps } from "./speculative";
import type { Step, Stepper, StepperOptions, StepRequest } from "./stepper";

/** Who drafts, and how many tokens at a time: a smaller model, or the text so far ("ngram"). */
export type Drafts = { model: LanguageModel; tokens: number } | { from: "ngram"; tokens: number };

/** One answer at a time, several tokens a step where the drafts are right. */
export class DraftStepper implements Stepper {
  constructor(
    readonly model: LanguageModel,
    private readonly drafts: Drafts,
    private readonly options: StepperOptions = {},
  ) {}

  async *steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    const options = { ...this.options, ...request, numDraftTokens: this.drafts.tokens };
    yield* draftedSteps(this.model, this.#drafter(options), request.prompt, options);
  }

  #drafter(options: StepperOptions & StepRequest): Drafter {
    return "model" in this.drafts ? new ModelDrafter(this.drafts.model, options) : new NgramDrafter();
  }

  dispose(): void {}
}
