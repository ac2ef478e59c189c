/** Texts up to stop texts, which count outside of thoughts. */
import { expect, test } from "bun:test";
import { chainModel } from "../../test/chain-model";
import { thinkingTokenizer } from "../../test/thinking-tokenizer";
import * as mx from "../mlx";
import { greedy } from "../sample";
import { completeTexts } from "./completions";

const tokenizer = await thinkingTokenizer();
const eos = tokenizer.idOf("<|close|>")!;
const idOf = async (text: string) => {
  const ids = await tokenizer.encode(text, { addSpecialTokens: false });
  expect(ids.length).toBe(1);
  return ids[0]!;
};

/** A model that goes on from a colon with these texts, a token each, and then ends. */
async function saying(...texts: string[]) {
  const ids = await Promise.all([":", ...texts].map(idOf));
  return chainModel(new Map(ids.slice(0, -1).map((id, i) => [id, ids[i + 1]!])), eos);
}

const thinker = await saying("<think>", "a", "x", "b", "</think>", "4", "2");

async function complete(model: typeof thinker, until: string[], { prompt = "Q:", maxTokens = 24 } = {}) {
  const texts: string[] = [];
  const ids = await tokenizer.encode(prompt, { addSpecialTokens: false });
  const onDone = (_: number, text: string) => texts.push(text);
  await completeTexts(model, tokenizer, [{ prompt: ids, maxTokens, until }], { batchSize: 2, sampler: greedy, onDone });
  return texts;
}

test.each<[until: string[], text: string]>([
  [["x"], "42"],
  [["Q:"], "42"],
  [["2"], "4"],
  [["x", "", "42"], ""],
  [[], "42"],
])("after a thought, up to %p", async (until, text) => {
  const before = mx.liveHandles();
  expect(await complete(thinker, until)).toEqual([text]);
  expect(mx.liveHandles()).toBe(before);
});

test("a thought that the prompt has opened is one too", async () => {
  expect(await complete(await saying("x", "</think>", "4", "b", "2"), ["4"], { prompt: "<think>:" })).toEqual([""]);
  expect(await complete(await saying("x", "</think>", "4", "2"), ["x"], { prompt: "<think>:" })).toEqual(["42"]);
});

test("a model that does not think stops at once, one that never ends its thought gives it all", async () => {
  expect(await complete(await saying("a", "x", "b"), ["x"])).toEqual(["a"]);
  expect(await complete(thinker, ["x"], { maxTokens: 4 })).toEqual(["<think>axb"]);
});
