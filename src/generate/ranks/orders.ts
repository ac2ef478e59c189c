/** What the first of several processes tells the others to do. */
import * as mx from "../../mlx";
import { broadcast, broadcastJson } from "../../mlx/group-messages";
import type { BatchGeneratorOptions, Joining, StepPlan } from "../batch";
import type { HeldForm } from "../constrain";
import type { StepRequest } from "../stepper";
import type { CacheChange } from "./caches-elsewhere";

/** How a batch runs, the same on all. */
export type BatchSizes = Pick<BatchGeneratorOptions, "completionBatchSize" | "prefillBatchSize" | "prefillStepSize">;

export type Change =
  | CacheChange
  | { type: "join"; sequence: Joining; cache: number | null }
  | { type: "leave"; ids: readonly number[] }
  /** A copy of a sequence's cache, under the next number. */
  | { type: "extract"; id: number };

/** An answer as those make its steps that draw no tokens. */
export interface ToldRequest extends Pick<StepRequest, "maxTokens" | "logprobs"> {
  prompt: readonly number[];
  stopTokens: readonly number[];
  cachedTokens: readonly number[];
  /** How many logits processors there are. */
  processors: number;
  /** Whether the sampler drops tokens. */
  drops: boolean;
  form: HeldForm | null;
  /** Null for one that nobody wants afterwards. */
  cache: number | null;
}

export type Order =
  /** Open the model, in place of the one before. */
  | { type: "open" }
  /** Free it. */
  | { type: "close" }
  /** Answer one after the other from now on. */
  | { type: "alone" }
  /** Answer side by side from now on. */
  | ({ type: "batch" } & BatchSizes)
  | { type: "answer"; changes: Change[]; request: ToldRequest }
  /** Make a step of the batch; an order without a word is one without changes. */
  | ({ type: "step"; changes: Change[] } & StepPlan)
  /** Put a cache together, for the first process to keep. */
  | { type: "gather"; changes: Change[]; cache: number }
  /** Take this process's part of a cache that the first one has, under the next number. */
  | { type: "spread"; changes: Change[] }
  /** Compute the hidden states of a text. */
  | { type: "states"; tokens: readonly number[] }
  | { type: "end" };

export const everyone = () => mx.distributed.init({ strict: true });

/** Tells the others. Each order is heard by all that `follow`. */
export function tell(order: Order): void {
  broadcastJson(everyone(), order);
}

/** What the first says within a step, on all. */
export const told = <T>(own: T): T => broadcastJson(everyone(), own);

/** A step of the batch as the last one, without a word. */
export function tellPlainStep(): void {
  broadcast(everyone(), new Uint8Array(0));
}

/** The next order; null for a step of the batch without changes. */
export function heard(): Order | null {
  const bytes = broadcast(everyone(), null);
  return bytes.length === 0 ? null : JSON.parse(new TextDecoder().decode(bytes));
}

/** Has the others open the model; this process opens it too. */
export const tellOpening = () => tell({ type: "open" });

/** Has the others compute a text's hidden states; this process computes them too. */
export const tellStates = (tokens: readonly number[]) => tell({ type: "states", tokens });

/** Lets the others end. */
export const tellEnd = () => tell({ type: "end" });
