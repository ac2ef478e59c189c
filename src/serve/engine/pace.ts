/** How much of the prompts is read between two steps, so that answers go on and HTTP stays alive meanwhile. */
import type { BatchWork } from "../../generate/batch/generator";

/** Seconds of reading in a step: while others wait for tokens, and while nobody does. */
const beside = 0.25;
const alone = 0.5;

/** Reading may take as long as so many steps of answering, where those are slow. */
const steps = 4;

/** Tokens in the first step, before anything is known, and at least. */
const first = 128;
const least = 16;

/** Of what was known before a reading so much still counts: the first ones are slow, while kernels are compiled or paged in. */
const kept = 0.25;

/** A `promptPace` of a batch. It learns the model's speed as it reads. */
export function adaptivePace(): (work: Readonly<BatchWork>, isAnswering: boolean) => number {
  let [tokens, seconds] = [0, 0];
  let [tokensBefore, secondsBefore, stepsBefore, steppingBefore] = [0, 0, 0, 0];
  let step = 0;
  return (work, isAnswering) => {
    if (work.promptTime > secondsBefore) {
      tokens = kept * tokens + work.promptTokens - tokensBefore;
      seconds = kept * seconds + work.promptTime - secondsBefore;
      [tokensBefore, secondsBefore] = [work.promptTokens, work.promptTime];
    }
    if (work.generationSteps > stepsBefore) {
      step = (work.generationTime - steppingBefore) / (work.generationSteps - stepsBefore);
      [stepsBefore, steppingBefore] = [work.generationSteps, work.generationTime];
    }
    if (tokens === 0 || seconds === 0) return first;
    const time = isAnswering ? Math.max(beside, steps * step) : alone;
    return Math.max(least, Math.floor((tokens / seconds) * time));
  };
}
