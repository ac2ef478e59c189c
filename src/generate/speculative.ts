/**
 * Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192): a small model drafts a few tokens, the large one checks
 * them all in one pass. What comes out is what the large model alone would give.
 */
import { ExitCode, UserError } from "../errors";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Cache, LanguageModel } from "../models";
import { greedy } from "../sample";
import { quantizeCaches } from "./kv-quantization";
import { checkMemory } from "./memory-cap";
import { checkPrompt, prefill } from "./prefill";
import type { Step, StepOptions } from "./step";

export interface SpeculativeOptions extends StepOptions {
  /** How many tokens the draft model proposes at a time. */
  numDraftTokens?: number;
  /** The draft model's cache, as `cache` is the model's. */
  draftCache?: Cache[];
}

export interface SpeculativeStep extends Step {
  /** Whether the draft model proposed the token. */
  fromDraft: boolean;
}

/** A model with what it has read. */
interface Reader {
  model: LanguageModel;
  cache: Cache[];
}

/** Whether a cache can be taken back, after so many more tokens too. */
const canTrim = (cache: readonly Cache[], more = 0) => cache.every((layer) => layer.isTrimmable(more));

function rewind(cache: readonly Cache[], count: number): void {
  if (count > 0) for (const layer of cache) layer.trim(count);
}

/**
 * Yields the tokens that follow `prompt`, like `generateSteps`. Where a cache can no longer be taken back (a sliding
 * window that is full), it goes on without drafts. When the loop ends after N tokens, both caches hold prompt and
 * tokens, but perhaps the last.
 * @throws UserError for an empty prompt, token ids that a model does not know, and caches that cannot be taken back
 */
export async function* speculativeSteps(
  model: LanguageModel,
  draftModel: LanguageModel,
  prompt: readonly number[],
  options: SpeculativeOptions = {},
): AsyncGenerator<SpeculativeStep, void, void> {
  const { maxTokens = 256, numDraftTokens = 2, sampler = greedy, logitsProcessors = [], signal, onPrefill } = options;
  checkPrompt(prompt, Math.min(model.vocabSize, draftModel.vocabSize));
  if (options.inputEmbeddings) {
    throw new UserError("input embeddings do not go with a draft model", {
      code: ExitCode.usage,
      hint: "Leave out --draft-model.",
    });
  }
  const target: Reader = { model, cache: options.cache ?? model.makeCache() };
  const draft: Reader = { model: draftModel, cache: options.draftCache ?? draftModel.makeCache() };
  if (!canTrim(target.cache) || !canTrim(draft.cache)) {
    throw new UserError("speculative decoding needs a KV cache that can be taken back, and this model's cannot", {
      code: ExitCode.usage,
      hint: "Leave out --draft-model.",
    });
  }

  /** Tokens that the logits processors see, the newest last. */
  const history = prompt.slice(0, -1);

  /** The choices after each of the last `count` tokens of `input` (T), with the log-probabilities that they came from. */
  const read = ({ model, cache }: Reader, input: Tensor, count: number, seen: readonly number[]) =>
    mx.scope(() => {
      const logits = model.forward(input.reshape(1, -1), { cache }).at(0, mx.slice(-count));
      quantizeCaches(cache, options.kvQuantization);
      if (logitsProcessors.length === 0) return choose(logits);
      const rows = logits.split(count, 0).map((row, i) => {
        const before = mx.array(seen.slice(0, seen.length - count + i + 1), "uint32");
        return choose(logitsProcessors.reduce((scores, process) => process(before, scores), row));
      });
      return {
        tokens: mx.concatenate(rows.map(({ tokens }) => tokens)),
        logprobs: mx.concatenate(rows.map(({ logprobs }) => logprobs)),
      };
    });
  const choose = (logits: Tensor) => {
    const logprobs = logits.subtract(logits.logsumexp({ axis: -1, keepdims: true }));
    return { tokens: sampler(logprobs), logprobs };
  };

  /** Up to `count` tokens that the draft model puts after `pending`. */
  const propose = (pending: readonly number[], count: number): number[] => {
    const proposed: number[] = [];
    for (let input = pending; proposed.length < count; input = proposed.slice(-1)) {
      const seen = [...history, ...proposed];
      proposed.push(mx.scope(() => read(draft, mx.array(input, "uint32"), 1, seen).tokens.item()));
    }
    return proposed;
  };

  /** The model's own choices after the last token and after each of the proposed ones; (V) for each, where asked for. */
  const check = (last: number, proposed: readonly number[]): [tokens: number[], logprobs: Tensor[]] =>
    mx.scope(() => {
      const input = mx.array([last, ...proposed], "uint32");
      const { tokens, logprobs } = read(target, input, proposed.length + 1, [...history, ...proposed]);
      const rows = options.logprobs ? logprobs.split(proposed.length + 1, 0).map((row) => row.squeeze(0)) : [];
      return [[...(tokens.toArray() as Uint32Array)], rows];
    });

  let drafted = 0;
  let accepted = 0;
  const rewindBoth = () => {
    rewind(target.cache, drafted - accepted);
    rewind(draft.cache, Math.max(drafted - accepted - 1, 0));
    drafted = accepted = 0;
  };

  try {
    (await prefill(draft.model, prompt, draft.cache, { ...options, onPrefill: undefined })).dispose();
    (await prefill(target.model, prompt, target.cache, options)).dispose();
    let last = prompt.at(-1)!;
    let pending = [last];
    history.push(last);
    for (let made = 0; made !== maxTokens && !signal?.aborted; ) {
      const room = maxTokens < 0 ? numDraftTokens : Math.min(maxTokens - made, numDraftTokens);
      const rewindable = canTrim(target.cache, room + 1) && canTrim(draft.cache, room + 1);
      const proposed = propose(pending, rewindable ? room : 0);
      drafted = proposed.length;
      const [tokens, logprobs] = check(last, proposed);
      if (made === 0) onPrefill?.(prompt.length, prompt.length);
      try {
        for (let i = 0; i <= drafted && made !== maxTokens && !signal?.aborted; i++) {
          const fromDraft = tokens[i] === proposed[i];
          if (fromDraft) accepted += 1;
          made += 1;
          history.push(tokens[i]!);
          yield { token: tokens[i]!, logprobs: logprobs.shift() ?? null, fromDraft };
          if (!fromDraft) break;
        }
      } finally {
        for (const unread of logprobs) unread.dispose();
      }
      const all = accepted === drafted;
      last = history.at(-1)!;
      // A proposal that was right to the end has not been read by its own model yet.
      pending = all && drafted > 0 ? history.slice(-2) : [last];
      rewindBoth();
      checkMemory(options.maxMemory);
      await breathe();
    }
  } finally {
    rewindBoth();
    if (!options.cache) for (const layer of target.cache) layer.dispose();
    if (!options.draftCache) for (const layer of draft.cache) layer.dispose();
  }
}
