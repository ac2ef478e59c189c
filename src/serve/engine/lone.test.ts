/** Models that answer one request after the other: with drafts, with a packed cache. */
import { describe, expect, test } from "bun:test";
import { type TestServerOptions, testServer } from "../../../test/serve";
import { thinkingTokenizer } from "../../../test/thinking-tokenizer";
import { tinyDraftHead, tinyHybrid, tinyModel } from "../../../test/tiny-model";
import { until } from "../../../test/until";
import { demoFolder } from "../../demo/folder";
import { openModel } from "../../generate/open-model";

const sum = { messages: [{ role: "user", content: "What is 27 + 58?" }] };
const next = {
  messages: [
    ...sum.messages,
    { role: "assistant", content: "7 + 8 = 15, so 5 and carry 1. 2 + 5 + 1 = 8. 27 + 58 = 85." },
    { role: "user", content: "What is 11 + 22?" },
  ],
};

interface Reply {
  choices: { message: { content: string } }[];
  usage: { prompt_tokens_details: { cached_tokens: number } };
}

const kinds: [string, TestServerOptions][] = [
  ["drafts from the text", { settings: { ownDrafts: () => ({ from: "ngram", tokens: 4 }) } }],
  ["a draft model", { models: { draft: () => openModel(demoFolder()) } }],
  ["a packed cache", { settings: { kvQuantization: { bits: 8, groupSize: 32, start: 0 } } }],
];

describe.each(kinds)("with %s", (_, options) => {
  test("requests are answered in turn, and go on from what was read", async () => {
    const plain = testServer({ settings: { promptCacheSize: 0 } });
    const server = testServer(options);
    const ask = async (from: typeof server, body: object) =>
      (await (await from.post("/v1/chat/completions", { ...body, max_tokens: 60 })).json()) as Reply;
    const textOf = ({ choices }: Reply) => choices[0]!.message.content;
    const expected = [textOf(await ask(plain, sum)), textOf(await ask(plain, next))];
    expect(expected[0]).toEndWith("85.");
    const [first, again] = await Promise.all([ask(server, sum), ask(server, sum)]);
    expect([textOf(first), textOf(again)]).toEqual([expected[0]!, expected[0]!]);
    const { scheduler } = server.context.models.loaded[0]!.served;
    expect(scheduler.isBatched).toBe(false);
    const third = await ask(server, next);
    expect(textOf(third)).toBe(expected[1]!);
    const controller = new AbortController();
    const cut = server.post("/v1/chat/completions", { ...sum, stream: true }, controller);
    await (await cut).body!.getReader().read();
    controller.abort();
    await until(() => scheduler.running === 0);
    expect(textOf(await ask(server, sum))).toBe(expected[0]!);
    await Promise.all([plain.stop(), server.stop()]);
  });
});

test("with a model's own draft layers, or the text so far, the answer is the same", async () => {
  const tokenizer = await thinkingTokenizer();
  const open = async () => {
    const model = await tinyModel({ ...tinyHybrid, vocab_size: 400 });
    const facts = { tokenizer, config: {}, folder: "/nowhere", contextLength: 4096 };
    return { model, draftHead: await tinyDraftHead(model), ...facts };
  };
  const texts: string[] = [];
  const heads: boolean[] = [];
  const ways: (TestServerOptions["settings"] | undefined)[] = [
    undefined,
    {
      ownDrafts(head) {
        heads.push(head !== undefined);
        return head ? { head, tokens: 2 } : null;
      },
    },
    { ownDrafts: () => ({ from: "ngram", tokens: 3 }) },
  ];
  for (const settings of ways) {
    const server = testServer({ open, settings });
    const response = await server.post("/v1/completions", { prompt: "Say it:", max_tokens: 24 });
    const { choices } = (await response.json()) as { choices: { text: string }[] };
    texts.push(choices[0]!.text);
    expect(server.context.models.loaded[0]!.served.scheduler.isBatched).toBe(settings === undefined);
    await server.stop();
  }
  expect(heads).toEqual([true]);
  expect(texts[0]!.length).toBeGreaterThan(10);
  expect(texts).toEqual([texts[0]!, texts[0]!, texts[0]!]);
});
