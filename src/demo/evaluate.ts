/** Whether the demo model does what it was taught: sums that were never in its text. */

import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { Tokenizer } from "../text/tokenizer";
import { plainQuestion, resultOf } from "./sums";

/** Longer than any answer to a sum. */
const longestAnswer = 48;

export interface WrongSum {
  a: number;
  b: number;
  answer: string;
}

/**
 * Asks for each sum, greedily, all at once: questions about two-digit numbers are equally long.
 * @returns those that the model gets wrong
 */
export async function wrongSums(
  model: LanguageModel,
  tokenizer: Tokenizer,
  pairs: readonly (readonly [number, number])[],
): Promise<WrongSum[]> {
  const prompts = await Promise.all(
    pairs.map(([a, b]) =>
      tokenizer.encodeChat([{ role: "user", content: plainQuestion(a, b) }], { addGenerationPrompt: true }),
    ),
  );
  const answers = decodeTogether(model, prompts).map((ids) => {
    const end = ids.findIndex((id) => tokenizer.eosTokenIds.has(id));
    return tokenizer.decode(end < 0 ? ids : ids.slice(0, end), { skipSpecialTokens: true });
  });
  return pairs.flatMap(([a, b], i) => (resultOf(answers[i]!) === a + b ? [] : [{ a, b, answer: answers[i]! }]));
}

/** Greedy continuations of prompts of one length. */
function decodeTogether(model: LanguageModel, prompts: readonly number[][]): number[][] {
  const cache = model.makeCache();
  const answers: number[][] = prompts.map(() => []);
  let input: Tensor = mx.array(prompts, "uint32");
  for (let step = 0; step < longestAnswer; step++) {
    const next = mx.scope(() => model.forward(input, { cache }).at(":", -1).argmax({ axis: -1 }));
    mx.eval(
      next,
      cache.map((layer) => layer.state),
    );
    const ids = next.toArray() as Uint32Array;
    for (const [i, id] of ids.entries()) answers[i]!.push(id);
    input.dispose();
    input = next.reshape(-1, 1);
    next.dispose();
  }
  input.dispose();
  for (const layer of cache) layer.dispose();
  return answers;
}
