/** Answers by a model with drafts. */
import type { DraftHead, LanguageModel } from "../models";
import { greedy } from "../sample";
import { endingTogether } from "./agreed-signal";
import { agreedSampler } from "./agreed-tokens";
import type { Drafter } from "./draft/drafter";
import { HeadDrafter } from "./draft/head-drafter";
import { ModelDrafter } from "./draft/model-drafter";
import { NgramDrafter } from "./draft/ngram-drafter";
import { draftedSteps } from "./speculative";
import type { Step, Stepper, StepperOptions, StepRequest } from "./stepper";

/** Who drafts, and how many tokens at a time: a smaller model, the model's own draft layers, or the text so far ("ngram"). */
export type Drafts = { tokens: number } & ({ model: LanguageModel } | { head: DraftHead } | { from: "ngram" });

/** One answer at a time, several tokens a step where the drafts are right. Of several processes all make the same steps. */
export class DraftStepper implements Stepper {
  constructor(
    readonly model: LanguageModel,
    private readonly drafts: Drafts,
    private readonly options: StepperOptions = {},
  ) {}

  steps(request: StepRequest): AsyncGenerator<Step, void, void> {
    const sampler = agreedSampler(request.sampler ?? greedy);
    return endingTogether(request.signal, (signal) => {
      const options = { ...this.options, ...request, sampler, signal, numDraftTokens: this.drafts.tokens };
      return draftedSteps(this.model, this.#drafter(options), request.prompt, options);
    });
  }

  #drafter(options: StepperOptions & StepRequest): Drafter {
    const { drafts } = this;
    if ("model" in drafts) return new ModelDrafter(drafts.model, options);
    if ("from" in drafts) return new NgramDrafter();
    const { cachedTokens = [], prompt } = options;
    const { head, tokens } = drafts;
    return new HeadDrafter(head, [...cachedTokens, ...prompt], { cached: cachedTokens.length, tokens });
  }

  dispose(): void {}
}
