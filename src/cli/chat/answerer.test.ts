/** The demo in a conversation far longer than the records that it was trained on. */
import { afterAll, expect, test } from "bun:test";
import { openModel } from "../model";
import { Output } from "../output";
import { ChatAnswerer } from "./answerer";
import type { Message } from "./conversation";

const { signal } = new AbortController();
const { model, tokenizer, contextLength } = await openModel("demo", new Output(false), signal, {});
afterAll(() => model.dispose());

const animals = ["fox", "frog", "bear", "duck", "cat", "dog", "owl"];

/** Its answers, and how many tokens each found in the cache. @param fresh each from an empty cache */
async function conversation(temp: number, fresh: boolean) {
  const answerer = new ChatAnswerer(model, tokenizer, { contextLength });
  const settings = { temp, topP: 1, minP: 0, topK: 0, xtcProbability: 0, xtcThreshold: 0.1, seed: 0, maxTokens: 110 };
  const messages: Message[] = [];
  const cached: number[] = [];
  const events = { onText() {}, onThought() {}, onPrefill() {}, signal };
  for (const [i, animal] of animals.entries()) {
    messages.push({ role: "user", content: `Tell me a story about a ${animal}.` });
    if (fresh) answerer.forget();
    answerer.seed(i);
    const { text, cachedTokens } = await answerer.answer(messages, { ...settings, thinking: undefined }, events);
    messages.push({ role: "assistant", content: text });
    cached.push(cachedTokens);
  }
  const { used } = answerer;
  answerer.forget();
  return { messages, cached, used };
}

test.each([0, 0.8])("the cache that carries over changes no answer of a long conversation (temp %p)", async (temp) => {
  const kept = await conversation(temp, false);
  const fresh = await conversation(temp, true);
  expect(kept.messages).toEqual(fresh.messages);
  expect(fresh.cached).toEqual(animals.map(() => 0));
  expect(kept.cached.slice(1).every((count, i) => count > kept.cached[i]!)).toBe(true);
  // Past what its cache first had room for, twice over.
  expect(kept.used!).toBeGreaterThan(512);
});
