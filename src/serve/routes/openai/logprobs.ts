/** Log-probabilities as OpenAI's chats and responses write them. */
import type { AnswerToken } from "../../../generate/answer";
import type { Tokenizer } from "../../../text/tokenizer";

/** @param count how many likely tokens to tell beside each */
export function logprobEntries(tokenizer: Tokenizer, tokens: readonly AnswerToken[], count: number): object[] {
  return tokens.map(({ top, ...one }) => ({
    ...entryOf(tokenizer, one),
    top_logprobs: top.slice(0, count).map((other) => entryOf(tokenizer, other)),
  }));
}

function entryOf(tokenizer: Tokenizer, { token: id, logprob }: { token: number; logprob: number }): object {
  const token = tokenizer.decode([id]);
  // JSON has no minus infinity; OpenAI writes this for what cannot be.
  return { id, token, logprob: Math.max(logprob, -9999), bytes: [...new TextEncoder().encode(token)] };
}
