import { describe, expect, test } from "bun:test";
import { fixture } from "../../test/parity/fixtures";
import { batch, camelCase } from "../../test/parity/sampling";
import { ExitCode, type UserError } from "../errors";
import * as mx from "../mlx";
import { makeSampler, type SamplerOptions } from ".";

interface Row {
  options: Record<string, number | number[]>;
  float32: number[][];
  bfloat16: number[][];
}

const { seed, samplers } = fixture<{ seed: number; samplers: Row[] }>("samplers.json");

for (const row of samplers) {
  for (const dtype of ["float32", "bfloat16"] as const) {
    test(`${JSON.stringify(row.options)}, ${dtype}: the tokens that Python draws`, () => {
      const sampler = makeSampler(camelCase(row.options) as SamplerOptions);
      mx.scope(() => {
        const logits = batch(dtype);
        const logprobs = logits.subtract(logits.logsumexp({ axis: -1, keepdims: true }));
        mx.random.seed(seed);
        for (const tokens of row[dtype]) expect(sampler(logprobs).toList()).toEqual(tokens);
      });
    });
  }
}

test("min-p keeps all tokens where more are to be kept than there are", () => {
  mx.scope(() => {
    const logprobs = mx.array([[-0.1, -3, -9]]);
    const draw = (minTokensToKeep: number) => {
      mx.random.seed(5);
      return makeSampler({ temp: 1, minP: 0.9, minTokensToKeep })(logprobs).toList();
    };
    expect(draw(1000)).toEqual(draw(3));
  });
});

test("temperature 0 takes the most likely token, whatever the filters, and draws nothing", () => {
  const sampler = makeSampler({ temp: 0, topP: 0.1, xtcProbability: 1, minP: 7 });
  mx.scope(() => {
    mx.random.seed(1);
    const before = mx.random.state.get().toList();
    expect(
      sampler(
        mx.array(
          [
            [1, 3, 2],
            [5, 4, 3],
          ],
          "float32",
        ),
      ).toList(),
    ).toEqual([1, 0]);
    expect(mx.random.state.get().toList()).toEqual(before);
  });
});

describe("errors", () => {
  const draw = (options: SamplerOptions) => () => {
    mx.scope(() => makeSampler({ temp: 1, ...options })(batch("float32")).toList());
  };
  const cases: [SamplerOptions, string][] = [
    [{ minP: 1.5 }, "min-p must lie between 0 and 1, not 1.5"],
    [{ minP: -0.1 }, "min-p must lie between 0 and 1, not -0.1"],
    [{ minP: 0.5, minTokensToKeep: 0 }, "min-tokens-to-keep must be a positive integer, not 0"],
    [{ minP: 0.5, minTokensToKeep: 0.5 }, "min-tokens-to-keep must be a positive integer, not 0.5"],
    [{ xtcProbability: 2 }, "xtc-probability must lie between 0 and 1, not 2"],
    [{ xtcProbability: 0.5, xtcThreshold: 0.6 }, "xtc-threshold must lie between 0 and 0.5, not 0.6"],
    [{ topK: 32 }, "top-k must be an integer between 0 and 32 (the vocabulary), exclusive, not 32"],
    [{ topK: 1.5 }, "top-k must be an integer"],
  ];
  for (const [options, message] of cases) {
    test(`${JSON.stringify(options)} is a usage error`, () => {
      expect(draw(options)).toThrow(message);
      try {
        draw(options)();
      } catch (error) {
        expect((error as UserError).code).toBe(ExitCode.usage);
      }
    });
  }
});
