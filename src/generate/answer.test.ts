/** Answers: parts as they come, each request's own settings, alone and side by side. */
import { afterAll, afterEach, beforeEach, describe, expect, test } from "bun:test";
import { thinkingTokenizer } from "../../test/thinking-tokenizer";
import { loadModel } from "../convert/load";
import { demoFolder } from "../demo/folder";
import * as mx from "../mlx";
import { makeLogitsProcessors } from "../sample";
import type { Tokenizer } from "../text/tokenizer";
import { type Answering, type AnswerRequest, answer, type End, type Part } from "./answer";
import { BatchStepper } from "./batch";
import { DraftStepper } from "./draft-stepper";
import { LoneStepper } from "./lone-stepper";
import { PrefixStore } from "./prefix-store";
import type { Stepper } from "./stepper";

const { model, tokenizer } = await loadModel(demoFolder());
afterAll(() => model.dispose());
const alone: Answering = { stepper: new LoneStepper(model), tokenizer };

let before: number;
beforeEach(() => {
  mx.random.seed(0);
  before = mx.liveHandles();
});
afterEach(() => expect(mx.liveHandles()).toBe(before));

interface Answered {
  text: string;
  parts: Part[];
  end: End;
}

async function all(request: AnswerRequest, by = alone): Promise<Answered> {
  const parts: Part[] = [];
  let end: End | undefined;
  for await (const part of answer(request, by)) {
    expect(end).toBeUndefined();
    if (part.type === "end") end = part;
    else parts.push(part);
  }
  return { text: parts.map((part) => ("text" in part ? part.text : "")).join(""), parts, end: end! };
}

const ask = (content: string) => ({ messages: [{ role: "user", content }] });

/** What an answer is, but for its speed. */
const facts = ({ text, end }: Answered) => ({ text, reason: end.finish_reason, generated: end.generated });

/** Requests that differ in all that a request can say. */
const different: AnswerRequest[] = [
  { prompt: ask("What is 27 + 58?") },
  { prompt: ask("Tell me a story about a fox."), maxTokens: 40, sampler: { temp: 1 }, seed: 1 },
  { prompt: ask("Tell me a story about a fox."), maxTokens: 40, sampler: { temp: 1 }, seed: 2 },
  { prompt: ask("Tell me a story about a fox."), maxTokens: 40, sampler: { temp: 1 }, seed: 1 },
  { prompt: ask("Tell me a story."), maxTokens: 25, sampler: { temp: 0.8, topP: 0.9, topK: 20, minP: 0.02 }, seed: 3 },
  { prompt: ask("hello"), sampler: { temp: 0.7, xtcProbability: 0.6, xtcThreshold: 0.05 }, seed: 4, maxTokens: 30 },
  { prompt: ask("Tell me a story about a dog."), maxTokens: 200, stopTexts: ["\n\n", ". "] },
  { prompt: ask("What is mlxlm?"), maxTokens: 9, logprobs: 3 },
  { prompt: ask("hello"), maxTokens: 12, stopTokens: new Set() },
  {
    prompt: ask("Tell me a story about a cat."),
    maxTokens: 30,
    logitsProcessors: makeLogitsProcessors({ repetitionPenalty: 1.3, logitBias: { 40: 3 } }),
  },
];

describe("side by side", () => {
  test("each gets what it gets alone, in any company", async () => {
    const expected: Answered[] = [];
    for (const request of different) expected.push(await all(request));
    expect(new Set(expected.map(({ text }) => text)).size).toBe(different.length - 1);
    expect(expected.map(({ end }) => end.finish_reason)).toContain("stop");
    for (const options of [{}, { completionBatchSize: 3, prefillBatchSize: 2, prefillStepSize: 5 }]) {
      const by = { stepper: new BatchStepper(model, options), tokenizer };
      const got = await Promise.all(different.map((request) => all(request, by)));
      expect(got.map(facts)).toEqual(expected.map(facts));
      const likelihoods = (one: Answered) => one.parts.flatMap(({ tokens }) => tokens ?? []);
      for (const [i, token] of likelihoods(got[7]!).entries()) {
        const other = likelihoods(expected[7]!)[i]!;
        expect(token.top.map(({ token }) => token)).toEqual(other.top.map(({ token }) => token));
        expect(token.logprob).toBeCloseTo(other.logprob, 3);
      }
      by.stepper.dispose();
    }
  });

  test("some are called off, some are left, some come later: no other notices", async () => {
    const expected: Answered[] = [];
    for (const request of different) expected.push(await all(request));
    const by = { stepper: new BatchStepper(model), tokenizer };
    const stop = new AbortController();
    const early = different.slice(0, 5).map((request) => all(request, by));
    const calledOff = all({ prompt: ask("Tell me a story."), maxTokens: -1, signal: stop.signal }, by);
    const left = (async () => {
      let count = 0;
      for await (const _ of answer({ prompt: ask("Tell me a story about a bird."), maxTokens: 300 }, by)) {
        if (++count === 5) break;
      }
    })();
    await left;
    stop.abort();
    const late = different.slice(5).map((request) => all(request, by));
    const { end } = await calledOff;
    expect(end.finish_reason).toBe("interrupted");
    expect(end.generated.length).toBeGreaterThan(2);
    expect((await Promise.all([...early, ...late])).map(facts)).toEqual(expected.map(facts));
    expect(by.stepper.size).toBe(0);
    by.stepper.dispose();
  });

  test("one that was called off before it began answers nothing", async () => {
    const by = { stepper: new BatchStepper(model), tokenizer };
    const { end } = await all({ prompt: ask("hello"), signal: AbortSignal.abort() }, by);
    expect(end).toMatchObject({ finish_reason: "interrupted", generation_tokens: 0, generated: [] });
    by.stepper.dispose();
  });

  test.each([1, 2, 5])("a failure at token %d reaches all, and the next ones are answered", async (at) => {
    const by = { stepper: new BatchStepper(model), tokenizer };
    let count = 0;
    const failing = () => {
      if (++count === at) throw new Error("the processor broke");
      return mx.array([40], "uint32");
    };
    const requests = [{ prompt: ask("Tell me a story.") }, { prompt: ask("hello"), sampler: failing }];
    const ends = await Promise.allSettled(requests.map((request) => all(request, by)));
    expect(ends.map((end) => (end as PromiseRejectedResult).reason?.message)).toEqual(
      Array(2).fill("the processor broke"),
    );
    expect(facts(await all(different[0]!, by))).toEqual(facts(await all(different[0]!)));
    by.stepper.dispose();
  });

  test("a caller's failure is its own", async () => {
    const by = { stepper: new BatchStepper(model), tokenizer };
    const onPrefill = (done: number) => {
      if (done > 0) throw new Error("the caller broke");
    };
    const [failed, other] = await Promise.allSettled([
      all({ prompt: ask("hello"), onPrefill }, by),
      all(different[0]!, by),
    ]);
    expect((failed as PromiseRejectedResult).reason.message).toBe("the caller broke");
    expect(facts((other as PromiseFulfilledResult<Answered>).value)).toEqual(facts(await all(different[0]!)));
    by.stepper.dispose();
  });

  test("conversations go on from what the store holds, each from its own", async () => {
    const by = {
      stepper: new BatchStepper(model),
      tokenizer,
      prefixes: new PrefixStore(() => model.makeCache(), { maxEntries: 3 }),
    };
    const animals = ["fox", "dog", "cat"];
    const talk = async (animal: string) => {
      const messages = [{ role: "user", content: `Tell me a story about a ${animal}.` }];
      const texts: string[] = [];
      const cached: number[] = [];
      for (const next of ["What is 4 + 5?", "hello", ""]) {
        const { text, end } = await all({ prompt: { messages }, maxTokens: 40 }, by);
        texts.push(text);
        cached.push(end.cached_tokens);
        const whole = { prompt: { messages: [...messages] }, maxTokens: 40 };
        expect(text).toBe((await all(whole)).text);
        messages.push({ role: "assistant", content: text }, { role: "user", content: next });
      }
      return cached;
    };
    for (const cached of await Promise.all(animals.map(talk))) {
      expect(cached[1]).toBeGreaterThan(0);
      expect(cached[2]).toBeGreaterThan(cached[1]!);
    }
    expect(by.prefixes!.size).toBe(3);
    by.prefixes!.clear();
    by.stepper.dispose();
  });
});

describe("an answer", () => {
  test("to embeddings in place of tokens is given alone only", async () => {
    const embeddings = mx.zeros([2, 8]);
    const batch = new BatchStepper(model);
    const request = { prompt: [1, 2], inputEmbeddings: embeddings };
    await expect(all(request, { stepper: batch, tokenizer })).rejects.toThrow("do not go with a batch");
    const drafting = new DraftStepper(model, { model, tokens: 2 });
    await expect(all(request, { stepper: drafting, tokenizer })).rejects.toThrow("do not go with a draft");
    batch.dispose();
    embeddings.dispose();
  });

  test("without a seed draws the process's random numbers, with one its own", async () => {
    const request = { prompt: ask("Tell me a story."), maxTokens: 20, sampler: { temp: 1 } };
    mx.random.seed(9);
    const [first, second] = [await all(request), await all(request)];
    expect(first.text).not.toBe(second.text);
    mx.random.seed(9);
    expect((await all({ ...request, seed: 1 })).text).not.toBe(first.text);
    expect((await all({ ...request, seed: 9 })).text).toBe(first.text);
    expect((await all(request)).text).toBe(first.text);
  });

  test("with a draft model is the same, and goes on from a store", async () => {
    const prefixes = new PrefixStore(() => model.makeCache());
    const by = { stepper: new DraftStepper(model, { model, tokens: 3 }), tokenizer, prefixes };
    for (const maxTokens of [7, 30, 31, 50]) {
      const request = { prompt: ask("Tell me a story about a fox."), maxTokens };
      const drafted = await all(request, by);
      expect(facts(drafted)).toEqual(facts(await all(request)));
      if (maxTokens > 7) expect(drafted.end.cached_tokens).toBeGreaterThan(5);
    }
    prefixes.clear();
  });

  test("ends before a stop text that lies across tokens", async () => {
    const request = { prompt: ask("Tell me a story about a fox."), maxTokens: 60 };
    const { text, parts } = await all(request);
    const border = parts
      .slice(0, 12)
      .map((part) => ("text" in part ? part.text : ""))
      .join("").length;
    const stop = text.slice(border - 2, border + 2);
    const stopped = await all({ ...request, stopTexts: [stop] });
    expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)));
    expect(stopped.end.finish_reason).toBe("stop");
    expect(stopped.end.generation_tokens).toBeLessThan(20);
    const absent = await all({ ...request, stopTexts: ["no such text", ""] });
    expect(facts(absent)).toEqual({ text, reason: "length", generated: (await all(request)).end.generated });
  });

  test("gives log-probabilities of what was chosen and of the likeliest", async () => {
    const { parts, end } = await all({ prompt: ask("What is 27 + 58?"), logprobs: 4 });
    const tokens = [...parts.flatMap((part) => part.tokens ?? []), ...end.tokens!];
    expect(tokens.map(({ token }) => token)).toEqual([...end.generated]);
    for (const { token, logprob, top } of tokens) {
      expect(top.length).toBe(4);
      expect(top[0]).toEqual({ token, logprob });
      expect(top.map((one) => one.logprob)).toEqual(top.map((one) => one.logprob).sort((a, b) => b - a));
      expect(top.reduce((sum, one) => sum + Math.exp(one.logprob), 0)).toBeLessThan(1.0001);
    }
    const { end: bare } = await all({ prompt: ask("What is 27 + 58?"), logprobs: 0 });
    expect(bare.tokens!.at(-1)!.top).toEqual([]);
  });

  test("says what it took", async () => {
    const { end } = await all({ prompt: [5, 6, 7], maxTokens: 4, stopTokens: new Set() });
    expect(end).toMatchObject({ prompt_tokens: 3, cached_tokens: 0, generation_tokens: 4, finish_reason: "length" });
    for (const figure of [end.prompt_tps, end.generation_tps, end.peak_memory]) expect(figure).toBeGreaterThan(0);
  });

  test.each<[request: AnswerRequest, problem: string]>([
    [{ prompt: [] }, "the prompt is empty"],
    [{ prompt: [1e6] }, "token 1000000"],
    [{ prompt: [1], maxTokens: 0 }, "max-tokens must be 1 or more"],
    [{ prompt: [1], sampler: { temp: 1, minP: 2 } }, "min-p must lie"],
  ])("%p is refused", async (request, problem) => {
    const batch = new BatchStepper(model);
    for (const stepper of [alone.stepper, batch]) {
      await expect(all({ ...request, seed: 1 }, { stepper, tokenizer })).rejects.toThrow(problem);
    }
    batch.dispose();
  });
});

describe("taken apart", () => {
  let thinking: Tokenizer;
  /** Gives the tokens of a text, whatever it is asked. */
  async function saying(text: string): Promise<Answering> {
    thinking ??= await thinkingTokenizer();
    const tokens = [...(await thinking.encode(text, { addSpecialTokens: false })), [...thinking.eosTokenIds][0]!];
    const stepper: Stepper = {
      model,
      async *steps() {
        for (const token of tokens) yield { token, logprobs: null, fromDraft: false };
      },
      dispose() {},
    };
    return { stepper, tokenizer: thinking };
  }
  const joined = ({ parts }: Answered) => {
    const texts: [type: string, text: string][] = [];
    for (const part of parts) {
      const text = part.type === "tool_calls" ? JSON.stringify(part.calls) : part.text;
      if (texts.at(-1)?.[0] === part.type) texts.at(-1)![1] += text;
      else texts.push([part.type, text]);
    }
    return texts;
  };

  test.each<[text: string, options: Partial<AnswerRequest>, parts: [type: string, text: string][]]>([
    ["<think>a x b</think>c x d", {}, [["text", "<think>a x b</think>c x d"]]],
    [
      "<think>a x b</think>c x d",
      { takeApart: true },
      [
        ["thought", "a x b"],
        ["text", "c x d"],
      ],
    ],
    ["<think>a x b</think>c x d", { takeApart: true, stopTexts: ["x"] }, [["thought", "a "]]],
    [
      "<think>a x b</think>c x d",
      { takeApart: true, stopTexts: ["x"], stopsInThoughts: false },
      [
        ["thought", "a x b"],
        ["text", "c "],
      ],
    ],
    ["<think>a x b", { takeApart: true, stopTexts: ["x"], stopsInThoughts: false }, [["thought", "a x b"]]],
  ])("%p with %p", async (text, options, parts) => {
    const answered = await all({ prompt: [5], maxTokens: 99, ...options }, await saying(text));
    expect(joined(answered)).toEqual(parts);
    expect(answered.end.finish_reason).toBe("stop");
  });

  test("calls are whole, and the reason where tools are on offer", async () => {
    const call = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>';
    const tools = [{ type: "function", function: { name: "add", parameters: {} } }];
    const by = await saying(`<think>hm</think>Let me see.${call}`);
    const offered = await all({ prompt: [5], maxTokens: 99, takeApart: true, tools }, by);
    const called = [{ name: "add", arguments: '{"a": 1}' }];
    expect(joined(offered)).toEqual([
      ["thought", "hm"],
      ["text", "Let me see."],
      ["tool_calls", JSON.stringify(called)],
    ]);
    expect(offered.end.finish_reason).toBe("tool_calls");
    expect((await all({ prompt: [5], maxTokens: 99, takeApart: true }, by)).end.finish_reason).toBe("stop");
    const cut = await all({ prompt: [5], maxTokens: 99, takeApart: true, tools, stopTexts: ["see"] }, by);
    expect(joined(cut)).toEqual([
      ["thought", "hm"],
      ["text", "Let me "],
    ]);
    expect(cut.end.finish_reason).toBe("stop");
  });
});
