/** Random numbers of one's own. */
import { expect, test } from "bun:test";
import * as mx from "../mlx";
import { greedy, makeSampler, type Sampler, seeded } from ".";

const logits = mx.keep(mx.sin(mx.arange(0, 300, 1, { dtype: "float32" })).reshape(1, 300));

const draws = (sampler: Sampler, count = 12) =>
  Array.from({ length: count }, () => mx.scope(() => sampler(logits).item()));

test.each([
  ["plain", makeSampler({ temp: 2 })],
  ["with filters", makeSampler({ temp: 2, topP: 0.9, minP: 0.01, topK: 50 })],
  ["with XTC, which draws too", makeSampler({ temp: 2, xtcProbability: 0.5, xtcThreshold: 0.004 })],
])("%s: what the process's random numbers give for the seed, whatever others draw", (_, sampler) => {
  mx.random.seed(11);
  const expected = draws(sampler);
  mx.random.seed(5);
  const shared = draws(sampler, 4);
  const before = mx.liveHandles();
  const [one, two] = [seeded(sampler, 11), seeded(sampler, 11)];
  mx.random.seed(5);
  const drawn: number[][] = [[], [], []];
  for (let n = 0; n < 12; n++) {
    drawn[0]!.push(...draws(one.sampler, 1));
    if (n % 2 === 0) drawn[1]!.push(...draws(two.sampler, 2));
    if (n < 4) drawn[2]!.push(...draws(sampler, 1));
  }
  expect(drawn).toEqual([expected, expected, shared]);
  one.dispose();
  two.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("a failing sampler leaves the process's random numbers as they were", () => {
  const plain = makeSampler({ temp: 1 });
  const own = seeded(() => {
    throw new Error("no token");
  }, 3);
  mx.random.seed(5);
  const expected = draws(plain);
  mx.random.seed(5);
  expect(() => draws(own.sampler, 1)).toThrow("no token");
  expect(draws(plain)).toEqual(expected);
  own.dispose();
});

test("the likeliest token needs none: greedy answers stay one draw in a batch", () => {
  expect(seeded(greedy, 3).sampler).toBe(greedy);
});
