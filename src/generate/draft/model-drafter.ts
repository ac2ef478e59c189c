/** A smaller model that drafts for a larger one. */
import { ExitCode, UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Cache, LanguageModel } from "../../models";
import { greedy } from "../../sample";
import { quantizeCaches } from "../kv-quantization";
import { acceptChosen, stepMask } from "../masks";
import { prefill } from "../prefill";
import { samplingStep } from "../sampling-step";
import type { StepOptions } from "../step";
import type { Drafter } from "./drafter";

export interface ModelDrafterOptions extends StepOptions {
  /** What the draft model has read before the prompt; changed in place. One of its own where absent. */
  draftCache?: Cache[];
}

export class ModelDrafter implements Drafter {
  readonly name = "a draft model";
  readonly flag = "--draft-model";
  readonly needsTrim = true;
  readonly #cache: Cache[];
  /** How many tokens of the sequence its cache holds. */
  #held = 0;

  /** @throws UserError where its cache cannot be taken back */
  constructor(
    private readonly model: LanguageModel,
    private readonly options: ModelDrafterOptions,
  ) {
    this.#cache = options.draftCache ?? model.makeCache();
    if (!this.#canTrim()) {
      this.dispose();
      throw new UserError("speculative decoding needs a KV cache that can be taken back, and this model's cannot", {
        code: ExitCode.usage,
        hint: "Leave out --draft-model.",
      });
    }
  }

  get vocabSize(): number {
    return this.model.vocabSize;
  }

  async prefill(prompt: readonly number[]): Promise<void> {
    const { cachedTokens = [], draftCache } = this.options;
    const unread = draftCache ? prompt : [...cachedTokens, ...prompt];
    const options = { ...this.options, onPrefill: undefined };
    (await prefill(this.model, unread, this.#cache, options)).dispose();
    this.#held = cachedTokens.length + prompt.length - 1;
  }

  propose(history: readonly number[], count: number): readonly number[] {
    if (count === 0 || !this.#canTrim(count + 1)) return [];
    const { constraint } = this.options;
    const proposed: number[] = [];
    let input = history.slice(this.#held);
    while (proposed.length < count) {
      const token = mx.scope(() => this.#read(input, [...history, ...proposed])?.item());
      if (token === undefined) break;
      acceptChosen(constraint, token);
      proposed.push(token);
      this.#held += input.length;
      input = proposed.slice(-1);
    }
    constraint?.rollback(proposed.length);
    return proposed;
  }

  /** The choice after the last of some tokens, (1); null where nothing may follow. */
  #read(input: readonly number[], seen: readonly number[]): Tensor | null {
    const { sampler = greedy, logitsProcessors = [], kvQuantization, constraint } = this.options;
    const mask = constraint ? stepMask([constraint], this.model.vocabSize) : null;
    if (mask?.isOver[0]) return null;
    const choosers = [{ sampler, logitsProcessors, seen: () => mx.array(seen, "uint32") }];
    const row = mx.array(input, "uint32").reshape(1, -1);
    const { tokens } = samplingStep(this.model, row, { cache: this.#cache, choosers, mask: mask?.bits });
    quantizeCaches(this.#cache, kvQuantization);
    return tokens;
  }

  settle(history: readonly number[]): void {
    const wrong = this.#held - (history.length - 1);
    if (wrong <= 0) return;
    for (const layer of this.#cache) layer.trim(wrong);
    this.#held -= wrong;
  }

  #canTrim(more = 0): boolean {
    return this.#cache.every((layer) => layer.isTrimmable(more));
  }

  dispose(): void {
    if (!this.options.draftCache) for (const layer of this.#cache) layer.dispose();
  }
}
