/** Logits processors: what changes logits in view of the tokens so far. */
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** Changes logits (B, V) in view of all tokens so far, prompt included, (T). */
export type LogitsProcessor = (tokens: Tensor, logits: Tensor) => Tensor;

/** Each penalty looks at the last `…ContextSize` tokens, 20 unless said; a penalty of 0 is off. */
export interface LogitsProcessorOptions {
  /** Added to the logits of tokens, by id. */
  logitBias?: ReadonlyMap<number, number> | Readonly<Record<number, number>>;
  /** Divides logits of tokens that occurred (negative ones are multiplied): 1 changes nothing. */
  repetitionPenalty?: number | null;
  repetitionContextSize?: number;
  /** Subtracted once from logits of tokens that occurred. */
  presencePenalty?: number | null;
  presenceContextSize?: number;
  /** Subtracted for each time that a token occurred. */
  frequencyPenalty?: number | null;
  frequencyContextSize?: number;
}

/**
 * The processors that the options ask for, in the order bias, repetition, presence, frequency.
 * @throws UserError for a negative repetition penalty
 */
export function makeLogitsProcessors(options: LogitsProcessorOptions = {}): LogitsProcessor[] {
  const { logitBias = {}, repetitionPenalty, presencePenalty, frequencyPenalty } = options;
  const { repetitionContextSize = 20, presenceContextSize = 20, frequencyContextSize = 20 } = options;

  const biases = logitBias instanceof Map ? [...logitBias] : Object.entries(logitBias);
  const processors: LogitsProcessor[] = [];
  if (biases.length > 0) processors.push(bias(biases.map(([id, value]) => [Number(id), value])));
  if (repetitionPenalty) processors.push(repetition(repetitionPenalty, repetitionContextSize));
  if (presencePenalty) processors.push(presence(presencePenalty, presenceContextSize));
  if (frequencyPenalty) processors.push(frequency(frequencyPenalty, frequencyContextSize));
  return processors;
}

function bias(entries: readonly (readonly [id: number, value: number])[]): LogitsProcessor {
  const ids = entries.map(([id]) => id);
  const values = entries.map(([, value]) => value);
  return (_, logits) => logits.addAt([":", ids], mx.array(values, "float32"));
}

/** A processor that sees the last tokens, and nothing before there are any. */
function recent(contextSize: number, process: (tokens: Tensor, logits: Tensor) => Tensor): LogitsProcessor {
  return (tokens, logits) => (tokens.size === 0 ? logits : process(tokens.at(mx.slice(-contextSize)), logits));
}

/** CTRL's penalty (Keskar et al. 2019, arXiv:1909.05858), by the sign of the logit. */
function repetition(penalty: number, contextSize: number): LogitsProcessor {
  if (penalty < 0) {
    throw new UserError(`repetition-penalty must not be negative, but is ${penalty}`, { code: ExitCode.usage });
  }
  return recent(contextSize, (tokens, logits) => {
    const found = logits.at(":", tokens);
    return logits.put([":", tokens], mx.where(found.less(0), found.multiply(penalty), found.divide(penalty)));
  });
}

function presence(penalty: number, contextSize: number): LogitsProcessor {
  return recent(contextSize, (tokens, logits) => {
    return logits.put([":", tokens], logits.at(":", tokens).subtract(penalty));
  });
}

function frequency(penalty: number, contextSize: number): LogitsProcessor {
  return recent(contextSize, (tokens, logits) => logits.subtractAt([":", tokens], penalty));
}
