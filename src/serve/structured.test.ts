/** Answers in a form over HTTP, by a model with random weights. */
import { afterAll, describe, expect, test } from "bun:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { testServer } from "../../test/serve";
import { thinkingTokenizer } from "../../test/thinking-tokenizer";
import { tinyModel } from "../../test/tiny-model";

const server = testServer({
  open: async () => ({
    model: await tinyModel({ vocab_size: 400 }),
    tokenizer: await thinkingTokenizer({ thinks: false }),
    ...{ config: {}, folder: "/nowhere", contextLength: 4096 },
  }),
});
afterAll(() => server.stop());
const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "any", maxRetries: 0 });

const messages = [{ role: "user" as const, content: "Say it." }];
const asked = { model: "m", messages, max_tokens: 400, temperature: 1, seed: 5 };
type Asked = Partial<OpenAI.ChatCompletionCreateParamsNonStreaming> & Record<string, unknown>;
const ask = (more: Asked) =>
  client.chat.completions.create({ ...asked, ...more } as never) as Promise<OpenAI.ChatCompletion>;
const textOf = async (more: Asked) => (await ask(more)).choices[0]!.message.content!;

const schema = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 5 },
    sizes: { type: "array", items: { enum: ["s", "m", "l"] }, maxItems: 2 },
  },
  required: ["name", "sizes"],
  additionalProperties: false,
};
const json_schema = { name: "thing", schema, strict: true };

function expectThing(text: string): void {
  const { name, sizes, ...others } = JSON.parse(text);
  expect([typeof name, Array.isArray(sizes), others]).toEqual(["string", true, {}]);
}

describe("response_format", () => {
  test("json_schema, whole and streamed, side by side", async () => {
    const response_format = { type: "json_schema" as const, json_schema };
    const [{ choices }, streamed, free] = await Promise.all([
      ask({ response_format, n: 3 }),
      client.chat.completions.stream({ ...asked, response_format }).finalChatCompletion(),
      ask({ max_tokens: 20 }),
    ]);
    expect(choices.map(({ finish_reason }) => finish_reason)).toEqual(["stop", "stop", "stop"]);
    for (const { message } of choices) expectThing(message.content!);
    expectThing(streamed.choices[0]!.message.content!);
    expect(free.choices[0]!.finish_reason).toBe("length");
  });

  test.each([
    ["guided_grammar", 'root ::= "ab" root', "length"],
    ["guided_regex", "(((ab){100}){100}){100}", "length"],
    ["guided_regex", "(ab){2000}", "stop"],
  ])("%s: a text that is all there may be, and long: %s", async (field, form, reason) => {
    const maxTokens = reason === "stop" ? 4096 : 300;
    const { choices } = await ask({ [field]: form, max_tokens: maxTokens, max_completion_tokens: undefined });
    expect(choices[0]!.finish_reason).toBe(reason as "stop");
    const text = choices[0]!.message.content!;
    expect(text).toBe("ab".repeat(2000).slice(0, text.length));
    expect(text.length).toBeGreaterThan(200);
    if (reason === "stop") expect(text.length).toBe(4000);
  });

  test("forms that would hold the engine up are refused", async () => {
    const forms: [field: string, form: unknown, message: RegExp][] = [
      ["guided_choice", Array.from({ length: 20_000 }, (_, i) => `c${i}`), /too long/],
      ["guided_grammar", `root ::= ${'"a" '.repeat(10_000)}`, /too long/],
      ["guided_regex", "a".repeat(40_000), /too long/],
    ];
    for (const [field, form, message] of forms) {
      const error = await ask({ [field]: form }).then(
        () => null,
        (thrown) => thrown as InstanceType<typeof OpenAI.APIError>,
      );
      expect([error?.status, error?.param]).toEqual([400, field]);
      expect(error!.message).toMatch(message);
    }
    const many = Array.from({ length: 8000 }, (_, i) => `c${i}`);
    expect(many).toContain(await textOf({ guided_choice: many }));
  });

  test("a grammar that is nothing but itself is a 400", async () => {
    const error = await ask({ guided_grammar: "root ::= root{1,3}" }).catch((one) => one);
    expect(error).toMatchObject({ status: 400, param: "guided_grammar" });
    expect(error.message).toContain('Rule "root" is nothing but repetitions of itself');
  });

  test("json_object", async () => {
    const completion = await ask({ response_format: { type: "json_object" }, logit_bias: { 95: 3 } as never });
    const { content } = completion.choices[0]!.message;
    expect(content).toStartWith("{");
    if (completion.choices[0]!.finish_reason === "stop") expect(typeof JSON.parse(content!)).toBe("object");
  });

  test("a keyword that cannot be held to is a 400 that names it, before any work", async () => {
    const error = await ask({
      response_format: {
        type: "json_schema",
        json_schema: { name: "x", schema: { properties: { a: { contains: {} } } } },
      },
    }).catch((one) => one);
    expect(error).toMatchObject({ status: 400, param: "response_format" });
    expect(error.message).toContain('"contains" at #/properties/a');
  });
});

test("guided_regex, guided_choice, guided_grammar", async () => {
  expect(await textOf({ guided_regex: "[a-f]{4}-\\d" })).toMatch(/^[a-f]{4}-\d$/);
  expect(["left", "right"]).toContain(await textOf({ guided_choice: ["left", "right"] }));
  expect(await textOf({ guided_grammar: 'root ::= "x" [0-9]{2}' })).toMatch(/^x\d\d$/);
});

describe("where the markers of calls are tokens", () => {
  const marked = testServer({
    open: async () => ({
      model: await tinyModel({ vocab_size: 400 }),
      tokenizer: await thinkingTokenizer({ thinks: true, marksCalls: true }),
      ...{ config: {}, folder: "/nowhere", contextLength: 4096 },
    }),
  });
  afterAll(() => marked.stop());
  const parameters = {
    type: "object",
    properties: { days: { type: "integer", minimum: 1, maximum: 9 } },
    required: ["days"],
  };
  const opener = 386;
  /** A model with random weights writes them without end. */
  const spaces = { 200: -100, 201: -100, 204: -100, 223: -100 };
  const callsOf = async (more: object, strict = true) => {
    const tools = [{ type: "function", function: { name: "weather", parameters, strict } }];
    const body = { messages, tools, max_tokens: 100, temperature: 1, parallel_tool_calls: false, logit_bias: spaces };
    const response = await marked.post("/v1/chat/completions", { ...body, ...more });
    const { choices } = (await response.json()) as OpenAI.ChatCompletion;
    const { finish_reason, message } = choices[0]!;
    const calls = (message.tool_calls ?? []) as OpenAI.ChatCompletionMessageFunctionToolCall[];
    return { finish_reason, days: calls.map((one) => JSON.parse(one.function.arguments).days as number) };
  };

  test.each([1, 2, 3])("a call that is required is made (seed %d)", async (seed) => {
    const { finish_reason, days } = await callsOf({ tool_choice: "required", seed });
    expect([finish_reason, days.length]).toEqual(["tool_calls", 1]);
    expect(days[0]).toBeWithin(1, 10);
  });

  test.each([1, 2, 3])("a call of a strict tool that the model begins fits its schema (seed %d)", async (seed) => {
    const begins = { seed, logit_bias: { ...spaces, [opener]: 20 } };
    const { finish_reason, days } = await callsOf(begins);
    expect([finish_reason, days.length]).toEqual(["tool_calls", 1]);
    expect(days[0]).toBeWithin(1, 10);
    expect((await callsOf(begins, false)).days).toEqual([]);
  });
});

describe("tool_choice", () => {
  const parameters = {
    type: "object",
    properties: { city: { type: "string", maxLength: 6 }, days: { type: "integer", minimum: 1, maximum: 9 } },
    required: ["city", "days"],
  };
  const tools = ["weather", "news"].map((name) => ({ type: "function" as const, function: { name, parameters } }));

  test.each([
    ["required", ["weather", "news"]],
    [{ type: "function", function: { name: "news" } }, ["news"]],
  ])(
    "%j calls a tool with arguments by its schema",
    async (tool_choice, names) => {
      for (const seed of [1, 2]) {
        const { choices } = await ask({ tools, tool_choice: tool_choice as never, seed });
        expect(choices[0]!.finish_reason).toBe("tool_calls");
        const [call] = choices[0]!.message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[];
        expect(names).toContain(call!.function.name);
        const { city, days } = JSON.parse(call!.function.arguments);
        expect([...city].length).toBeLessThanOrEqual(6);
        expect(days).toBeWithin(1, 10);
      }
    },
    30_000,
  );

  const anthropicTools = tools.map(({ function: { name } }) => ({ name, input_schema: parameters }));
  test.each([
    [{ type: "any" }, ["weather", "news"]],
    [{ type: "tool", name: "news" }, ["news"]],
    [{ type: "tool", name: "weather", disable_parallel_tool_use: true }, ["weather"]],
  ])(
    "Anthropic's %j likewise",
    async (tool_choice, names) => {
      const body = { model: "m", max_tokens: 400, messages, tools: anthropicTools, tool_choice, temperature: 1 };
      const answer = (await (await server.post("/v1/messages", body)).json()) as {
        stop_reason: string;
        content: { type: string; name: string; input: { city: string; days: number } }[];
      };
      expect(answer.stop_reason).toBe("tool_use");
      const [call] = answer.content.filter(({ type }) => type === "tool_use");
      expect(names).toContain(call!.name);
      expect(call!.input.days).toBeWithin(1, 10);
    },
    30_000,
  );

  describe("strict tools, which the model need not call", () => {
    const responsesTools = tools.map(({ type, function: one }) => ({ type, ...one, strict: true }));
    const strict = tools.map(({ type, function: one }) => ({ type, function: { ...one, strict: true } }));
    const offers = { tools: strict, max_tokens: 60, logit_bias: { 2: -100 } };

    test("leave text free", async () => {
      const { choices } = await ask(offers);
      expect(choices[0]).toMatchObject({
        finish_reason: "length",
        message: { content: expect.stringMatching(/.{20}/s) },
      });
    });

    test("are refused beside another form, and by a model that calls no tools", async () => {
      const refusals: [path: string, body: object, param: string][] = [
        ["/v1/chat/completions", { ...asked, ...offers, response_format: { type: "json_object" } }, "tools"],
        [
          "/v1/responses",
          { input: "Say it.", tools: responsesTools, text: { format: { type: "json_object" } } },
          "tools",
        ],
        [
          "/v1/responses",
          {
            input: "Say it.",
            tools: responsesTools,
            tool_choice: "required",
            text: { format: { type: "json_object" } },
          },
          "tool_choice",
        ],
      ];
      for (const [path, body, param] of refusals) {
        const response = await server.post(path, body);
        const { error } = (await response.json()) as { error: { param: string } };
        expect([response.status, error.param]).toEqual([400, param]);
      }
      const anthropicTools = tools.map(({ function: { name } }) => ({ name, input_schema: parameters, strict: true }));
      const output_config = { format: { type: "json_schema", schema } };
      const message = { model: "m", max_tokens: 9, messages, tools: anthropicTools, output_config };
      const third = await server.post("/v1/messages", message);
      expect([third.status, await third.text()]).toEqual([400, expect.stringContaining("strict")]);
      const response = await server.post("/api/chat", { model: "m", messages, tools: strict, format: "json" });
      expect([response.status, await response.text()]).toEqual([400, expect.stringContaining("strict")]);
    });
  });

  test("streamed", async () => {
    const body = { ...asked, tools, tool_choice: "required" as const };
    const { choices } = await client.chat.completions.stream(body).finalChatCompletion();
    expect(choices[0]!.finish_reason).toBe("tool_calls");
    expect(choices[0]!.message.tool_calls).toHaveLength(1);
  });
});

test("Anthropic's output_config.format holds, whole and streamed", async () => {
  const anthropic = new Anthropic({ baseURL: server.url, apiKey: "any", maxRetries: 0 });
  const body = { model: "m", max_tokens: 400, messages, temperature: 1 };
  const output_config = { format: { type: "json_schema" as const, schema } };
  const whole = await anthropic.messages.create({ ...body, output_config });
  const streamed = await anthropic.messages.stream({ ...body, output_config }).finalMessage();
  for (const { content } of [whole, streamed]) expectThing(content[0]?.type === "text" ? content[0].text : "");
  const refused = { format: { type: "json_schema" as const, schema: { not: {} } } };
  const error = await anthropic.messages.create({ ...body, output_config: refused }).catch((one) => one);
  expect(error).toBeInstanceOf(Anthropic.BadRequestError);
  expect(error.message).toContain("output_config.format");
  const tools = [{ name: "f", input_schema: { type: "object" as const } }];
  const both = anthropic.messages.create({ ...body, output_config, tools, tool_choice: { type: "any" } });
  expect(await both.catch((one) => one)).toBeInstanceOf(Anthropic.BadRequestError);
});

test("Ollama's format and the Responses API's text.format hold too", async () => {
  const chat = await server.post("/api/chat", {
    model: "m",
    messages,
    format: schema,
    stream: false,
    options: { seed: 3, temperature: 1, num_predict: 400 },
  });
  expectThing(((await chat.json()) as { message: { content: string } }).message.content);
  const response = await client.responses.create({
    ...{ model: "m", input: "Say it.", max_output_tokens: 400, temperature: 1 },
    text: { format: { type: "json_schema", name: "thing", schema } },
  });
  expectThing(response.output_text);
});
