/** Several processes that make the same steps with one model: the first decides, the others follow. */
import type { Tensor } from "../../mlx";
import type { BatchRequest } from "./sequence";

/** What the others need to know of a sequence: how it is read, and when it ends. */
export type Joining = Required<Pick<BatchRequest, "prompt" | "maxTokens" | "stop">>;

/** What a step begins with. */
export interface StepPlan {
  joining: Joining[];
  /** Ids of sequences that leave; those that ended by themselves may be among them. */
  leaving: number[];
  /** How many tokens of all prompts are read in the step: beside answers, and without any. null for no limit. */
  pace: readonly [beside: number | null, alone: number | null];
}

export interface Lockstep {
  /** On the first: called ahead of each step. Absent on the others. */
  announce?(plan: StepPlan): void;
  /** (B): what the first has chosen, on all. All call it once for each choice. */
  share(tokens: Tensor): Tensor;
}
