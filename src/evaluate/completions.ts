/** Texts that a model writes after prompts, up to one of some texts. */
import { BatchGenerator } from "../generate/batch";
import { breathe } from "../macrotask";
import type { LanguageModel } from "../models";
import type { Sampler } from "../sample";
import type { Detokenizer } from "../text/detokenizer";
import type { Tokenizer } from "../text/tokenizer";

export interface CompletionRequest {
  prompt: readonly number[];
  maxTokens: number;
  /** The first of them to occur ends the text, and is no part of it. */
  until: readonly string[];
}

export interface CompletionOptions {
  /** How many prompts at a time. */
  batchSize: number;
  sampler: Sampler;
  onDone?: (index: number, text: string) => void;
  signal?: AbortSignal;
}

interface Running {
  index: number;
  tokens: number[];
  text: Detokenizer;
  until: readonly string[];
}

/** @returns false where it was interrupted. @throws UserError for a prompt that the model cannot take */
export async function completeTexts(
  model: LanguageModel,
  tokenizer: Tokenizer,
  requests: readonly CompletionRequest[],
  { batchSize, sampler, onDone, signal }: CompletionOptions,
): Promise<boolean> {
  const generator = new BatchGenerator(model, { prefillBatchSize: batchSize, completionBatchSize: batchSize });
  const stop = [...tokenizer.eosTokenIds].map((token) => [token]);
  try {
    const running = new Map<number, Running>();
    const order = requests.map((_, i) => i).sort((a, b) => requests[a]!.prompt.length - requests[b]!.prompt.length);
    for (const index of order) {
      const { prompt, maxTokens, until } = requests[index]!;
      const id = generator.add({ prompt, maxTokens, sampler, stop });
      running.set(id, { index, tokens: [], text: tokenizer.detokenizer(), until: until.filter((text) => text !== "") });
    }
    const finish = (id: number) => {
      const { index, tokens, until } = running.get(id)!;
      running.delete(id);
      onDone?.(index, withoutThoughts(cutAt(tokenizer.decode(tokens), until), tokenizer));
    };
    while (generator.size > 0) {
      if (signal?.aborted) return false;
      const ended: number[] = [];
      for (const event of generator.step()) {
        if (event.type !== "token") continue;
        const { tokens, text, until } = running.get(event.id)!;
        if (event.finishReason !== "stop") {
          tokens.push(event.token);
          text.addToken(event.token);
        }
        // What follows would be cut away: the reference generates it, to no effect.
        const isCut = until.some((one) => text.text.includes(one, text.text.length - one.length - longestToken));
        if (isCut && !event.finishReason) ended.push(event.id);
        if (event.finishReason || isCut) finish(event.id);
      }
      if (ended.length > 0) generator.remove(ended);
      await breathe();
    }
    return true;
  } finally {
    generator.dispose();
  }
}

/** Characters that one token adds at most; a longer one is found at the end. */
const longestToken = 256;

function cutAt(text: string, until: readonly string[]): string {
  const places = until.map((one) => text.indexOf(one)).filter((place) => place >= 0);
  return text.slice(0, Math.min(text.length, ...places));
}

/** What stands behind the thoughts of a model that thinks. */
function withoutThoughts(text: string, { thinking }: Tokenizer): string {
  const end = thinking === null ? -1 : text.indexOf(thinking.end);
  return end < 0 ? text : text.slice(end + thinking!.end.length);
}
