/** What the first of several processes tells the others to do. */
import * as mx from "../../mlx";
import { broadcast, broadcastJson, type ToldTensor } from "../../mlx/group-messages";
import type { LanguageModel } from "../../models";
import type { BatchGeneratorOptions, Joining, StepPlan } from "../batch";
import type { HeldForm } from "../constrain";
import type { StepRequest } from "../stepper";
import type { CacheChange } from "./caches-elsewhere";

/** How a batch runs, the same on all. */
export type BatchSizes = Pick<BatchGeneratorOptions, "completionBatchSize" | "prefillBatchSize" | "prefillStepSize">;

export type Change =
  | CacheChange
  | { type: "join"; sequence: Joining; cache: number | null; adapter: number | null }
  | { type: "leave"; ids: readonly number[] }
  /** A copy of a sequence's cache, under the next number. */
  | { type: "extract"; id: number };

/** A model as the first process names it to the others. */
export interface ToldModel {
  name: string;
  /** What is opened; absent for what mlxlm takes where none is named. */
  open?: string;
  adapterPath?: string;
}

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
  /** Of embeddings in place of the tokens' own, which come behind the order. */
  embeddings: ToldTensor | null;
}

/** Models, the adapters of all, and answers have numbers, the next free one each. An order about something says which model it is about. */
export type Order =
  /** Open a model. Where that fails on any process, none has it. */
  | { type: "open"; model: number; source: ToldModel }
  /** Free it. */
  | { type: "close"; model: number }
  /** Load an adapter of a model whose batch shares several. Where that fails on any process, none has it. */
  | { type: "adapt"; model: number; adapter: number; folder: string }
  | { type: "unadapt"; model: number; adapter: number }
  /** Answer one after the other from now on. */
  | { type: "alone"; model: number }
  /** Answer side by side from now on. */
  | ({ type: "batch"; model: number } & BatchSizes)
  /** Begin an answer, and make its first step. */
  | { type: "answer"; model: number; answer: number; way: AnswerWay; changes: Change[]; request: ToldRequest }
  /** Make the next steps of an answer, so many of them. */
  | { type: "next"; model: number; answer: number; count: number }
  /** Make a step of the batch. */
  | ({ type: "step"; model: number; changes: Change[] } & StepPlan)
  /** Put a cache together, for the first process to keep. */
  | { type: "gather"; model: number; changes: Change[]; cache: number }
  /** Take this process's part of a cache that the first one has, under the next number. */
  | { type: "spread"; model: number; changes: Change[] }
  /** Compute the hidden states of a text. */
  | { type: "states"; model: number; tokens: readonly number[] }
  | { type: "end" };

/** In turn with the model's others, or beside its batch. */
export type AnswerWay = "in turn" | "beside";

export const everyone = () => mx.distributed.init({ strict: true });

type Sequel = Extract<Order, { type: "step" | "next" }>;

/** A step of nothing out of the ordinary. */
export const plainStep: StepPlan = { isHeld: false, isLate: false, pace: [null, null] };

/**
 * Steps of an answer that are made by one order where nobody else asks for a turn: before an order is heard, what was
 * begun ahead has to be computed.
 */
export const mostSteps = 16;

/** What an order without a word stands for behind another one: the next step of the same. */
function sequelOf(order: Order): Sequel | null {
  const { type } = order;
  if (type === "step") return { type, model: order.model, changes: [], ...plainStep };
  if (type === "answer") return { type: "next", model: order.model, answer: order.answer, count: mostSteps };
  return type === "next" ? order : null;
}

/** The same on all processes. */
let sequel: Sequel | null = null;

/** Tells the others. Each order is heard by all that `follow`. */
export function tell(order: Order): void {
  broadcastJson(everyone(), order);
  sequel = sequelOf(order);
}

/** Tells them of a step, without a word where it is the next one of what they did last. */
export function tellStep(order: Sequel): void {
  if (JSON.stringify(sequel) === JSON.stringify(order)) broadcast(everyone(), new Uint8Array(0));
  else tell(order);
}

/** What the first says within a step, on all. */
export const told = <T>(own: T): T => broadcastJson(everyone(), own);

/** The next order. */
export function heard(): Order {
  const bytes = broadcast(everyone(), null);
  const order: Order = bytes.length > 0 ? JSON.parse(new TextDecoder().decode(bytes)) : sequel!;
  sequel = sequelOf(order);
  return order;
}

const numbers = new WeakMap<LanguageModel, number>();
let opened = 0;

/** The number of a model that the others have too. */
export function numberOf(model: LanguageModel): number {
  const number = numbers.get(model);
  if (number === undefined) throw new Error("the other processes do not have this model");
  return number;
}

/** Has the others open a model; this process opens it too, and then says which it is. */
export function tellOpening(source: ToldModel): (model: LanguageModel) => void {
  const number = opened++;
  tell({ type: "open", model: number, source });
  return (model) => void numbers.set(model, number);
}

/** Has the others compute a text's hidden states; this process computes them too. */
export const tellStates = (model: LanguageModel, tokens: readonly number[]) =>
  tell({ type: "states", model: numberOf(model), tokens });

/** Lets the others end. */
export const tellEnd = () => tell({ type: "end" });
