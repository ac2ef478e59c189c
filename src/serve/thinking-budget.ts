/** A limit on how long a model thinks: beyond it, the thought is ended for it. */
import * as mx from "../mlx";
import type { LogitsProcessor } from "../sample";
import { opensThought, type Thinking } from "../text/thinking";

/** Ends a thought that is still open after so many tokens. The tokens are looked at once, when they are made. */
export function thinkingBudget(budget: number, thinking: Thinking): LogitsProcessor {
  let made = 0;
  let forced: number[] | null = null;
  return (tokens, logits) => {
    if (made++ < budget) return logits;
    if (forced === null) {
      const isOpen = opensThought(Array.from(tokens.toArray() as Uint32Array), thinking);
      forced = isOpen ? [...thinking.endTokens] : [];
    }
    const next = forced.shift();
    if (next === undefined) return logits;
    const others = mx.arange(logits.dim(-1), undefined, 1, { dtype: "int32" }).notEqual(next);
    return mx.where(others, Number.NEGATIVE_INFINITY, mx.zeros([1], logits.dtype)).expandDims(0);
  };
}
