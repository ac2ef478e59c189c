/** Who guesses the tokens that a model then checks. */
import type { LanguageModel } from "../../models";

/** What of a model is called while a prompt is read and tokens are checked. */
export type Forward = Pick<LanguageModel, "forward">;

/** How a pass of the model over proposed tokens went. */
export interface Checked {
  /** The position of the first token that the model read in it. */
  from: number;
  /** How many of the proposed tokens were right. */
  accepted: number;
}

export interface Drafter {
  /** For a person: "a draft model". */
  readonly name: string;
  /** The flag that asks for it. */
  readonly flag: string;
  /** How many token ids it knows, where they may be fewer than the model's. */
  readonly vocabSize?: number;
  /** The model as it wants it called: it looks at what is computed. */
  readonly reader?: Forward;
  /** It works only beside caches that forget single tokens, as mlx-lm's does. */
  readonly needsTrim?: boolean;
  /** Reads a prompt by itself, but its last token, ahead of the model. */
  prefill?(prompt: readonly number[]): Promise<void>;
  /** The model has read a chunk of the prompt, but never its last token. */
  onChunk?(): void;
  /**
   * Up to `count` tokens that may follow.
   * @param history all tokens so far, the newest last, which the model has not read
   */
  propose(history: readonly number[], count: number): readonly number[];
  /**
   * The model has checked what was proposed, if only that there was nothing.
   * @param history with all that was right and the newest token, which the model has not read
   */
  settle(history: readonly number[], checked: Checked): void;
  dispose(): void;
}
