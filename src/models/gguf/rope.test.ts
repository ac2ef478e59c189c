/** YaRN's numbers in GGUF files: those that have a place come back, the others are refused. */
import { expect, test } from "bun:test";
import { UserError } from "../../errors";
import type { GgufDescription } from "./facts";
import { readScaling, writeScaling } from "./rope";

const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64 };

const sizes = { headDim: 16, max_position_embeddings: 256 };

/** What is read of a file with the fields that are written. */
function back(scaling: object) {
  const { fields, tensors } = writeScaling(scaling, sizes, 10_000);
  const value = (key: string) => fields[key]?.[1];
  const file = {
    number: (key: string) => value(key) as number | undefined,
    factors: (name: string) => tensors[name],
    text: (key: string) => value(key) as string | undefined,
  } as GgufDescription;
  const read = readScaling(file) ?? {};
  return Object.fromEntries(Object.entries(read).filter(([, value]) => value !== undefined));
}

test("the usual bounds of the ramp need no place", () => {
  const { rope_type: type, ...numbers } = yarn;
  expect(back(yarn)).toEqual({ type, ...numbers });
  expect(back({ ...yarn, beta_fast: 32, beta_slow: 1, mscale: 1 })).toEqual({ type, ...numbers });
  for (const change of [{ beta_fast: 16 }, { beta_slow: 2 }, { truncate: false }]) {
    expect(() => writeScaling({ ...yarn, ...change }, sizes, 10_000)).toThrow(UserError);
    expect(() => writeScaling({ ...yarn, ...change }, sizes, 10_000)).toThrow(/of yarn.* has no place/);
  }
});

test("LongRoPE's factors are tensors", () => {
  const factors = { long_factor: [1, 2.5, 4, 8, 8, 8, 8, 8], short_factor: [1, 1, 1, 1, 1, 1, 1, 1.5] };
  const longrope = { type: "longrope", ...factors, original_max_position_embeddings: 64 };
  const { attention_factor, ...read } = back(longrope);
  expect(read).toEqual(longrope);
  expect(attention_factor).toBeCloseTo(Math.sqrt(1 + Math.log(4) / Math.log(64)), 6);
  expect(() => writeScaling({ ...longrope, short_factor: 2 }, sizes, 10_000)).toThrow(/"short_factor".* has no place/);
});

test("a factor on queries and keys comes back, whichever numbers it is from", () => {
  expect(back({ ...yarn, attention_factor: 1.25 }).attention_factor).toBeCloseTo(1.25, 6);
  const magnitude = (0.1 * 0.7 * Math.log(4) + 1) / (0.1 * 1.2 * Math.log(4) + 1);
  expect(back({ ...yarn, mscale: 0.7, mscale_all_dim: 1.2 }).attention_factor).toBeCloseTo(magnitude, 6);
});
