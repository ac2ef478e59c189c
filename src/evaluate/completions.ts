/** Texts that a model writes after prompts, up to one of some texts. */
import { answer } from "../generate/answer";
import { stopTexts } from "../generate/answer-text";
import { BatchStepper } from "../generate/batch";
import type { LanguageModel } from "../models";
import type { Sampler } from "../sample";
import type { Tokenizer } from "../text/tokenizer";

export interface CompletionRequest {
  prompt: readonly number[];
  maxTokens: number;
  /** The first of them to occur, outside of thoughts, ends the text, and is no part of it. */
  until: readonly string[];
}

export interface CompletionOptions {
  /** How many prompts at a time. */
  batchSize: number;
  sampler: Sampler;
  onDone?: (index: number, text: string) => void;
  signal?: AbortSignal;
}

/** @returns false where it was interrupted. @throws UserError for a prompt that the model cannot take */
export async function completeTexts(
  model: LanguageModel,
  tokenizer: Tokenizer,
  requests: readonly CompletionRequest[],
  { batchSize, sampler, onDone, signal }: CompletionOptions,
): Promise<boolean> {
  const stepper = new BatchStepper(model, { prefillBatchSize: batchSize, completionBatchSize: batchSize });
  /** Ends all when one fails. */
  const failing = new AbortController();
  const signals = AbortSignal.any(signal ? [signal, failing.signal] : [failing.signal]);

  const complete = async (index: number): Promise<void> => {
    const { prompt, maxTokens, until } = requests[index]!;
    const stops = { stopTexts: until, stopsInThoughts: false };
    const request = { prompt, maxTokens, sampler, ...stops, signal: signals };
    for await (const part of answer(request, { stepper, tokenizer })) {
      if (part.type !== "end" || part.finish_reason === "interrupted") continue;
      const ids = part.generated.filter((token) => !tokenizer.eosTokenIds.has(token));
      // The harness sees the text decoded as a whole: a space at its beginning counts.
      const whole = tokenizer.decode(ids);
      const cut = stopTexts(tokenizer, prompt, stops);
      onDone?.(index, withoutThoughts(cut ? cut.push(whole) + cut.end() : whole, tokenizer));
    }
  };

  const order = requests.map((_, i) => i).sort((a, b) => requests[a]!.prompt.length - requests[b]!.prompt.length);
  try {
    const all = order.map(complete);
    try {
      await Promise.all(all);
    } catch (error) {
      failing.abort();
      await Promise.allSettled(all);
      throw error;
    }
    return !signal?.aborted;
  } finally {
    stepper.dispose();
  }
}

/** What stands behind the thoughts of a model that thinks. */
function withoutThoughts(text: string, { thinking }: Tokenizer): string {
  const end = thinking === null ? -1 : text.indexOf(thinking.end);
  return end < 0 ? text : text.slice(end + thinking!.end.length);
}
