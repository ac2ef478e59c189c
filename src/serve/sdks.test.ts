/** What the npm packages of the three APIs do alike: leave in the middle, ask for JSON, throw their own errors. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import Anthropic from "@anthropic-ai/sdk";
import { Ollama } from "ollama";
import OpenAI from "openai";
import { testServer } from "../../test/serve";
import { until } from "../../test/until";

const server = testServer();
beforeAll(async () => (await server.context.models.lease()).release());
afterAll(() => server.stop());
const openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "any", maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: server.url, apiKey: "any", maxRetries: 0 });
const ollama = new Ollama({ host: server.url });

const messages = [{ role: "user" as const, content: "Tell me a story about a fox." }];
const schema = { type: "object" as const, properties: { ok: { type: "boolean" } }, required: ["ok"] };

const scheduler = () => server.context.models.loaded[0]!.served.scheduler;

/** Asks, reads a piece, and leaves. */
const leaving: [string, () => Promise<void>][] = [
  [
    "openai",
    async () => {
      const stream = await openai.chat.completions.create({ model: "m", messages, max_tokens: 900, stream: true });
      for await (const _ of stream) break;
    },
  ],
  [
    "openai, of a response",
    async () => {
      const stream = await openai.responses.create({ model: "m", input: messages[0]!.content, stream: true });
      for await (const { type } of stream) if (type === "response.output_text.delta") stream.controller.abort();
    },
  ],
  [
    "openai, by its signal",
    async () => {
      const controller = new AbortController();
      const asked = openai.chat.completions.create(
        { model: "m", messages, max_tokens: 900 },
        { signal: controller.signal },
      );
      const end = asked.catch((error) => error);
      await until(() => scheduler().running === 1);
      controller.abort();
      expect(await end).toBeInstanceOf(OpenAI.APIUserAbortError);
    },
  ],
  [
    "anthropic",
    async () => {
      const stream = anthropic.messages.stream({ model: "m", max_tokens: 900, messages });
      stream.once("text", () => stream.abort());
      expect(await stream.done().catch((error) => error)).toBeInstanceOf(Anthropic.APIUserAbortError);
    },
  ],
  [
    "ollama",
    async () => {
      const stream = await ollama.chat({ model: "m", messages, stream: true });
      const read = async () => {
        for await (const _ of stream) stream.abort();
      };
      expect(await read().catch((error) => error.name)).toBe("AbortError");
    },
  ],
];

test.each(leaving)("cancel: %s", async (_, leave) => {
  await leave();
  await until(() => scheduler().running === 0);
});

const asking: [string, () => Promise<string>][] = [
  [
    "openai",
    async () => {
      const json_schema = { name: "x", schema, strict: true };
      const body = { model: "m", messages, response_format: { type: "json_schema" as const, json_schema } };
      return (await openai.chat.completions.parse(body)).choices[0]!.message.content!;
    },
  ],
  [
    "openai, of a response",
    async () => {
      const format = { type: "json_schema" as const, name: "x", schema };
      return (await openai.responses.create({ model: "m", input: "Well?", text: { format } })).output_text;
    },
  ],
  [
    "anthropic",
    async () => {
      const output_config = { format: { type: "json_schema" as const, schema } };
      const { content } = await anthropic.messages.create({ model: "m", max_tokens: 100, messages, output_config });
      return content.map((block) => (block.type === "text" ? block.text : "")).join("");
    },
  ],
  ["ollama", async () => (await ollama.chat({ model: "m", messages, format: schema })).message.content],
];

test.each(asking)("json_schema: %s", async (_, ask) => {
  expect(typeof JSON.parse(await ask()).ok).toBe("boolean");
});

test("errors are the packages' own", async () => {
  const top_p = 7;
  const errors = await Promise.all([
    openai.chat.completions.create({ model: "m", messages, top_p }).catch((error) => error),
    anthropic.messages.create({ model: "m", max_tokens: 9, messages, ...{ top_p } }).catch((error) => error),
    ollama.chat({ model: "m", messages, options: { top_p } }).catch((error) => error),
  ]);
  expect(errors[0]).toBeInstanceOf(OpenAI.BadRequestError);
  expect(errors[1]).toBeInstanceOf(Anthropic.BadRequestError);
  expect(errors[2]).toMatchObject({ name: "ResponseError", status_code: 400 });
  for (const { message } of errors) expect(message).toContain("top_p");
});
