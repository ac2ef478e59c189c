/** Several processes that make the same steps with one model: the first decides, the others follow. */
import type { Tensor } from "../../mlx";
import type { Cache } from "../../models";
import type { PooledAdapter } from "../../tune/adapter-pool";
import type { BatchRequest } from "./sequence";

/** What the others need to know of a sequence: how it is read, and when it ends. */
export type Joining = Required<Pick<BatchRequest, "prompt" | "maxTokens" | "stop" | "boundaries" | "keepCache">>;

/** What a step begins with. */
export interface StepPlan {
  /** Whether a grammar holds some of the answers: only the first process knows when those end. */
  isHeld: boolean;
  /** Whether the first process reads what was chosen before the model goes on, for it may have to choose again. */
  isLate: boolean;
  /** How many tokens of all prompts are read in the step: beside answers, and without any. null for no limit. */
  pace: readonly [beside: number | null, alone: number | null];
}

/** A sequence that leaves the batch, and whether its cache is kept. */
export type Ended = readonly [id: number, isKept: boolean];

/** What the first process tells the others, in this order. They do the same. */
export interface Lead {
  /** Does a step when the others are free for it. */
  inTurn(step: () => void): Promise<void>;
  /** A sequence waits, from now on; it begins with a cache that the others have parts of, or with none, and has an adapter that they have. */
  joins(sequence: Joining, cache: readonly Cache[] | null, adapter: PooledAdapter | null): void;
  /** Sequences leave; those that ended by themselves may be among them. */
  leaves(ids: readonly number[]): void;
  /** A sequence's cache was copied, between two steps. */
  copied(id: number, cache: readonly Cache[]): void;
  /** A sequence ended and its cache is kept. */
  kept(cache: readonly Cache[]): void;
  /** A step begins. */
  begins(plan: StepPlan): void;
  /** A step failed here, and the others are in the midst of it. */
  failed(error: unknown): void;
}

export interface Lockstep {
  /** On the first process. */
  lead?: Lead;
  /** On the others: what the step under way began with. */
  plan?(): StepPlan;
  /** (B): what the first has chosen, on all. All call it once for each choice. */
  share(tokens: Tensor): Tensor;
  /** What the first says, on all: anything that JSON can hold. */
  told<T>(own: T): T;
}
