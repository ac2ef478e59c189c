/** Anthropic's SDK against a server in this process. */
import { afterAll, beforeAll, beforeEach, describe, expect, spyOn, test } from "bun:test";
import Anthropic from "@anthropic-ai/sdk";
import { type Script, ScriptStepper, scriptedModel } from "../../../../test/script-stepper";
import { testServer } from "../../../../test/serve";

const demo = testServer();
const scripted = testServer({ open: scriptedModel, keepAliveInterval: 0.01 });
const client = new Anthropic({ baseURL: demo.url, apiKey: "any", maxRetries: 0 });
const script: Script = { text: "", prompts: [] };
const told = new Anthropic({ baseURL: scripted.url, apiKey: "any", maxRetries: 0 });
beforeAll(async () => {
  const { served, release } = await scripted.context.models.lease();
  Object.assign(served.scheduler, { stepper: new ScriptStepper(served.tokenizer, script) });
  release();
});
beforeEach(() => void script.prompts.splice(0));
afterAll(() => Promise.all([demo.stop(), scripted.stop()]));

type Body = Partial<Anthropic.MessageCreateParamsNonStreaming> & Record<string, unknown>;
const sum: Anthropic.MessageParam[] = [{ role: "user", content: "What is 27 + 58?" }];
const story: Anthropic.MessageParam[] = [{ role: "user", content: "Tell me a story about a fox." }];
const ask = (body: Body, by = client) => by.messages.create({ model: "m", max_tokens: 100, messages: sum, ...body });
const textOf = async (body: Body) => {
  const [block] = (await ask(body)).content;
  return block?.type === "text" ? block.text : "";
};

describe("a message", () => {
  test("is answered whole, and streamed alike", async () => {
    const message = await ask({});
    expect(message).toMatchObject({ type: "message", role: "assistant", stop_reason: "end_turn", stop_sequence: null });
    expect(message.content).toEqual([{ type: "text", text: expect.stringContaining("27 + 58 = 85.") }] as never);
    const stream = client.messages.stream({ model: "m", max_tokens: 100, messages: sum });
    const deltas: string[] = [];
    stream.on("text", (text) => void deltas.push(text));
    const final = await stream.finalMessage();
    expect(final.content).toEqual(message.content as never);
    expect(deltas.length).toBeGreaterThan(10);
    expect(final.usage.output_tokens).toBe(message.usage.output_tokens);
  });

  const changing: [string, Body][] = [
    ["max_tokens", { max_tokens: 3 }],
    ["temperature", { temperature: 1, top_k: 0 }],
    ["stop_sequences", { stop_sequences: [" a"] }],
  ];
  test.each(changing)("%s acts", async (_, change) => {
    const base = { messages: story, max_tokens: 20 };
    expect(await textOf({ ...base, ...change })).not.toBe(await textOf(base));
  });

  test.each([
    ["top_k", { top_k: 1 }],
    ["top_p", { top_p: 0.0001 }],
  ])("%s acts", async (_, change) => {
    const greedy = await textOf({ messages: story, max_tokens: 20 });
    expect(await textOf({ messages: story, max_tokens: 20, temperature: 1, ...change })).toBe(greedy);
  });

  test.each([
    ["beside the messages", { system: "Be brief." }],
    [
      "as blocks",
      { system: [{ type: "text" as const, text: "Be brief.", cache_control: { type: "ephemeral" as const } }] },
    ],
    ["in the list", { messages: [...sum, { role: "system", content: "Be brief." } as never, ...sum] }],
  ])("a system prompt %s reaches the template", async (_, body) => {
    script.text = "Yes.";
    await ask(body, told);
    expect(script.prompts[0]).toMatch(/system\s+Be brief\./);
  });

  test("why it ended", async () => {
    expect((await ask({ max_tokens: 3 })).stop_reason).toBe("max_tokens");
    const stopped = await ask({ stop_sequences: ["nothing", " and carry"] });
    expect(stopped).toMatchObject({ stop_reason: "stop_sequence", stop_sequence: " and carry" });
  });

  test("blocks of text, with marks of what to cache; an answer that has begun", async () => {
    const cache_control = { type: "ephemeral" as const };
    const blocks = [
      { role: "user" as const, content: [{ type: "text" as const, text: "What is 27 + 58?", cache_control }] },
    ];
    expect(await textOf({ messages: blocks })).toBe(await textOf({}));
    const begun = { role: "assistant" as const, content: "7 + 8 = 15, so 5 and carry 1. 2 + 5 + 1 = 8. 27 + 58 =" };
    expect(await textOf({ messages: [...sum, begun] })).toBe("85.");
  });

  test("tokens are counted as they are read", async () => {
    const { input_tokens } = await client.messages.countTokens({ model: "m", messages: sum, system: "Be brief." });
    const { usage } = await ask({ system: "Be brief.", max_tokens: 1 });
    expect(input_tokens).toBe(usage.input_tokens + usage.cache_read_input_tokens!);
  });

  test("models are listed as its SDK reads them", async () => {
    const { data } = await client.models.list();
    expect(data).toMatchObject([{ id: "demo", type: "model", display_name: "demo" }]);
  });
});

const tools: Anthropic.Tool[] = [
  {
    name: "weather",
    description: "of a city",
    input_schema: { type: "object", properties: { city: { type: "string" } } },
  },
];
const call = (city: string) => `<tool_call>{"name": "weather", "arguments": {"city": "${city}"}}</tool_call>`;

describe("thoughts and tools", () => {
  test("are blocks of their own, streamed or not", async () => {
    script.text = `<think>Two cities.</think>I look.${call("Bern")}${call("Basel".repeat(30))}`;
    const whole = await ask({ max_tokens: 500, tools, thinking: { type: "enabled", budget_tokens: 1024 } }, told);
    expect(whole.stop_reason).toBe("tool_use");
    expect(whole.content.map(({ type }) => type)).toEqual(["thinking", "text", "tool_use", "tool_use"]);
    expect(whole.content[2]).toMatchObject({ name: "weather", input: { city: "Bern" } });
    const events: string[] = [];
    const stream = told.messages.stream({ model: "m", max_tokens: 500, messages: sum, tools });
    stream.on("streamEvent", ({ type }) => void events.push(type));
    const streamed = await stream.finalMessage();
    const withoutIds = (content: object[]) => content.map((one) => ({ ...one, id: null }));
    expect(withoutIds(streamed.content)).toEqual(withoutIds(whole.content));
    expect(events[0]).toBe("message_start");
    expect(events.filter((type) => type === "content_block_start")).toHaveLength(4);
    expect(events.filter((type) => type === "content_block_stop")).toHaveLength(4);
    expect(events.slice(-2)).toEqual(["message_delta", "message_stop"]);
  });

  test("come back as the conversation goes on", async () => {
    script.text = "Rain in Bern.";
    const messages: Anthropic.MessageParam[] = [
      ...sum,
      {
        role: "assistant",
        content: [
          { type: "thinking", thinking: "a city", signature: "mlxlm" },
          { type: "text", text: "I look." },
          { type: "tool_use", id: "toolu_1", name: "weather", input: { city: "Bern" } },
        ],
      },
      {
        role: "user",
        content: [
          {
            type: "tool_result",
            tool_use_id: "toolu_1",
            content: [{ type: "text", text: "much rain" }],
            is_error: true,
          },
          { type: "text", text: "So?" },
        ],
      },
    ];
    await ask({ messages, tools }, told);
    expect(script.prompts[0]).toMatch(/I look\.[\s\S]*Error: much rain[\s\S]*So\?/);
  });

  test("tool_choice none offers no tools, auto offers them", async () => {
    script.text = "Rainy.";
    const { served, release } = await scripted.context.models.lease();
    const encoded = spyOn(served.tokenizer, "encodeChat");
    await ask({ tools, tool_choice: { type: "none" } }, told);
    await ask({ tools, tool_choice: { type: "auto" } }, told);
    const offered = encoded.mock.calls.map(([, options]) => options?.tools?.length ?? 0);
    encoded.mockRestore();
    release();
    expect(offered.filter((count) => count > 0)).toEqual([tools.length]);
    expect(offered).toContain(0);
  });

  test("disable_parallel_tool_use leaves one call", async () => {
    script.text = call("Bern") + call("Basel");
    const { content } = await ask({ tools, tool_choice: { type: "auto", disable_parallel_tool_use: true } }, told);
    expect(content).toHaveLength(1);
  });
});

describe("what is wrong", () => {
  test.each([
    [{ max_tokens: undefined }, /"max_tokens" must be given/],
    [{ max_tokens: 0 }, /max_tokens/],
    [{ messages: [] }, /messages/],
    [{ messages: [{ role: "user", content: [{ type: "image", source: {} }] }] }, /messages\.0\.content/],
    [
      { messages: [{ role: "user", content: [{ type: "tool_use", id: "1", name: "x", input: {} }] }] },
      /does not belong/,
    ],
    [{ mcp_servers: [] }, /"mcp_servers" is not supported/],
    [{ tools, tool_choice: { type: "any" } }, /"tool_choice"/],
    [{ tools, tool_choice: { type: "tool", name: "other" } }, /names no tool/],
    [{ tools: [{ type: "web_search_20250305", name: "web_search" }] }, /tools/],
  ])("%j is refused in its own shape", async (body, message) => {
    const error = await ask(body as Body).catch((error) => error);
    expect(error).toBeInstanceOf(Anthropic.BadRequestError);
    expect(error.error).toMatchObject({
      type: "error",
      error: { type: "invalid_request_error", message: expect.stringMatching(message) },
    });
  });
});
