import { describe, expect, test } from "bun:test";
import { expectValues, fixture, float32 } from "../../test/parity/fixtures";
import { batch, camelCase } from "../../test/parity/sampling";
import { UserError } from "../errors";
import * as mx from "../mlx";
import { type LogitsProcessorOptions, makeLogitsProcessors } from ".";

interface Row {
  options: Record<string, unknown>;
  logits: string;
}

const { tokens, processors } = fixture<{ tokens: number[]; processors: Row[] }>("samplers.json");

function apply(options: LogitsProcessorOptions, ids: readonly number[]): mx.Tensor {
  const seen = mx.array(ids, "uint32");
  return makeLogitsProcessors(options).reduce((logits, process) => process(seen, logits), batch("float32"));
}

for (const { options, logits } of processors) {
  test(`${JSON.stringify(options)}: Python's logits`, () => {
    mx.scope(() => {
      const actual = apply(camelCase(options) as LogitsProcessorOptions, tokens);
      expectValues(actual.toArray(), float32(logits), { tolerance: 1e-6 });
    });
  });
}

describe("edges", () => {
  const unchanged = (options: LogitsProcessorOptions, ids: readonly number[]) =>
    mx.scope(() => expect(apply(options, ids).toList()).toEqual(batch("float32").toList()));

  test("penalties leave logits alone before there is a token", () => {
    unchanged({ repetitionPenalty: 2, presencePenalty: 1, frequencyPenalty: 1 }, []);
  });

  test("a penalty of 0 or null is off", () => {
    expect(makeLogitsProcessors({ repetitionPenalty: 0, presencePenalty: null, frequencyPenalty: 0 })).toEqual([]);
    expect(makeLogitsProcessors({ logitBias: new Map() })).toEqual([]);
  });

  test("a negative repetition penalty is an error", () => {
    expect(() => makeLogitsProcessors({ repetitionPenalty: -1 })).toThrow(UserError);
  });

  test("a bias for a token outside the vocabulary is an error", () => {
    expect(() => mx.scope(() => apply({ logitBias: { 32: 1 } }, [0]))).toThrow(RangeError);
  });
});
