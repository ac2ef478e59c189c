/** Text as it is generated, with the figures that mlx-lm reports, by the same clock. */
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { Tokenizer } from "../text/tokenizer";
import { speculativeSteps } from "./speculative";
import { generateSteps, type StepOptions } from "./step";
import { withWiredLimit } from "./wired";

export type FinishReason = "stop" | "length" | "interrupted";

/** One segment of text. Field names are mlx-lm's. */
export interface GenerationResponse {
  /** The text that came with this token, possibly "". */
  text: string;
  token: number;
  /** Whether a draft model proposed the token. */
  from_draft: boolean;
  prompt_tokens: number;
  /** Tokens a second until the first generated token. */
  prompt_tps: number;
  generation_tokens: number;
  /** Tokens a second after it. */
  generation_tps: number;
  /** GB (10⁹ bytes). */
  peak_memory: number;
  /** Null but for the last response. */
  finish_reason: FinishReason | null;
}

export interface StreamOptions extends StepOptions {
  /** A smaller model with the same tokens, which proposes some at a time. */
  draft?: { model: LanguageModel; tokens: number };
}

/**
 * Generates text from token ids.
 * @throws UserError for an empty prompt or `maxTokens` 0
 */
export async function* streamGenerate(
  model: LanguageModel,
  tokenizer: Tokenizer,
  prompt: readonly number[],
  options: StreamOptions = {},
): AsyncGenerator<GenerationResponse, void, void> {
  const { maxTokens = 256, signal, draft } = options;
  if (!Number.isInteger(maxTokens) || maxTokens === 0 || maxTokens < -1) {
    throw new UserError(`max-tokens must be 1 or more, or -1 for no limit, not ${maxTokens}`, { code: ExitCode.usage });
  }
  const restoreWiredLimit = withWiredLimit(model);
  const detokenizer = tokenizer.detokenizer();
  let began = performance.now();
  let promptTps = 0;
  let count = 0;
  let token = -1;
  let fromDraft = false;

  const response = (finishReason: FinishReason | null): GenerationResponse => ({
    text: detokenizer.lastSegment(),
    token,
    from_draft: fromDraft,
    prompt_tokens: prompt.length,
    prompt_tps: promptTps,
    generation_tokens: count,
    generation_tps: count / ((performance.now() - began) / 1000),
    peak_memory: mx.peakMemory() / 1e9,
    finish_reason: finishReason,
  });

  try {
    let finish: FinishReason = "length";
    const steps = draft
      ? speculativeSteps(model, draft.model, prompt, { ...options, maxTokens, numDraftTokens: draft.tokens })
      : generateSteps(model, prompt, { ...options, maxTokens });
    for await (const step of steps) {
      if (count === 0) {
        promptTps = prompt.length / ((performance.now() - began) / 1000);
        began = performance.now();
      }
      count += 1;
      token = step.token;
      fromDraft = "fromDraft" in step && step.fromDraft === true;
      step.logprobs?.dispose();
      if (tokenizer.eosTokenIds.has(token)) {
        finish = "stop";
        break;
      }
      detokenizer.addToken(token);
      if (count === maxTokens) break;
      yield response(null);
    }
    if (signal?.aborted) finish = "interrupted";
    detokenizer.finalize();
    yield response(finish);
  } finally {
    restoreWiredLimit();
  }
}
