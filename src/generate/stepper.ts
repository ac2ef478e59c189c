/** What gives an answer its tokens: a model alone, with drafts, or in a batch with other answers. */
import type { Tensor } from "../mlx";
import type { Cache, LanguageModel } from "../models";
import type { LogitsProcessor, Sampler } from "../sample";
import type { Constraint } from "../sample/grammar/constraint";
import type { PooledAdapter } from "../tune/adapter-pool";
import type { HeldForm } from "./constrain";
import type { PrefillOptions } from "./prefill";

export interface StepRequest {
  prompt: readonly number[];
  /** How many tokens; -1: no limit. */
  maxTokens?: number;
  sampler?: Sampler;
  logitsProcessors?: readonly LogitsProcessor[];
  /** Holds the answer to a grammar. The steps end where nothing may follow. */
  constraint?: Constraint | null;
  /** What the constraint was made of. */
  form?: HeldForm | null;
  /** Of the adapters of a batch: what the model has for these steps. */
  adapter?: PooledAdapter | null;
  /** The first of these ends the steps, and is the last of them. */
  stopTokens?: ReadonlySet<number>;
  /** What the model has read before the prompt. It may be changed in place: see `onEnd`. */
  cache?: Cache[];
  /** The tokens that `cache` stands for: logits processors see them too. */
  cachedTokens?: readonly number[];
  /** Hand out the log-probabilities of every token. */
  logprobs?: boolean;
  /** Embeddings (T, D) of the prompt's tokens, in place of the model's own. */
  inputEmbeddings?: Tensor;
  /** Called as the prompt is read. */
  onPrefill?: (done: number, total: number) => void;
  /** Called after each pass of a model with drafts: how many it checked, and how many were right from the first on. */
  onDrafts?: (proposed: number, accepted: number) => void;
  /** Places in the prompt, as counts of its tokens, at which reading halts for `onBoundary`. */
  boundaries?: readonly number[];
  /** Called there with a copy of the caches, which the receiver disposes of, and the tokens that they stand for. */
  onBoundary?: (cache: Cache[], tokens: readonly number[]) => void;
  /**
   * Called once, when the steps end in whatever way but an error: the caches as they are then, and the tokens that they
   * stand for. They are `cache` itself, or new ones that the receiver disposes of; then `cache` is as it was.
   */
  onEnd?: (cache: Cache[], tokens: readonly number[]) => void;
  /** Ends the steps between two of them. */
  signal?: AbortSignal;
}

export interface Step {
  token: number;
  /** (V), where asked for. The receiver disposes of it. */
  logprobs: Tensor | null;
  /** Whether it was drafted. */
  fromDraft: boolean;
}

export interface Stepper {
  readonly model: LanguageModel;
  /**
   * The tokens that follow a prompt.
   * @throws UserError for a prompt that the model cannot take
   */
  steps(request: StepRequest): AsyncGenerator<Step, void, void>;
  dispose(): void;
}

/** How a model reads and remembers, whatever it is asked. */
export interface StepperOptions extends Pick<PrefillOptions, "prefillStepSize" | "kvQuantization" | "maxMemory"> {
  /** Keep only so many tokens of layers that attend to all. */
  maxKvSize?: number;
}
