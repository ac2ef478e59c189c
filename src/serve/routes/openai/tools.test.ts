/** Thoughts and calls of tools, by a model that says what it is told to. */
import { afterAll, beforeAll, beforeEach, expect, spyOn, test } from "bun:test";
import OpenAI from "openai";
import { type Script, ScriptStepper, scriptedModel } from "../../../../test/script-stepper";
import { testServer } from "../../../../test/serve";
import type { ChatOptions } from "../../../text/chat-template";

const server = testServer({ open: scriptedModel });
const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "any", maxRetries: 0 });
const script: Script = { text: "", prompts: [] };
beforeAll(async () => {
  const { served, release } = await server.context.models.lease();
  Object.assign(served.scheduler, { stepper: new ScriptStepper(served.tokenizer, script) });
  release();
});
beforeEach(() => void script.prompts.splice(0));
afterAll(() => server.stop());

const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function" as const, function: { name: "weather", description: "of a city", parameters } }];
const messages = [{ role: "user" as const, content: "And in Bern?" }];
const city = "Saint-Remy-en-Bouzemont-Saint-Genest-et-Isson, in the department of Marne";
const call = (name: string) => `<tool_call>{"name": "weather", "arguments": {"city": "${name}"}}</tool_call>`;

test("thoughts come apart from the answer", async () => {
  script.text = "<think>Bern is a city.</think>Rainy.";
  const { choices } = await client.chat.completions.create({ model: "m", messages });
  expect(choices[0]!.message).toMatchObject({
    content: "Rainy.",
    reasoning: "Bern is a city.",
    reasoning_content: "Bern is a city.",
  } as object);
  let [thoughts, text] = ["", ""];
  for await (const chunk of await client.chat.completions.create({ model: "m", messages, stream: true })) {
    const delta = chunk.choices[0]!.delta as { content?: string; reasoning_content?: string };
    thoughts += delta.reasoning_content ?? "";
    text += delta.content ?? "";
  }
  expect([thoughts, text]).toEqual(["Bern is a city.", "Rainy."]);
});

test("calls of tools, two at once, and their arguments in pieces", async () => {
  script.text = `Let me see.${call("Bern")}${call(city)}`;
  const { choices } = await client.chat.completions.create({ model: "m", messages, tools });
  expect(choices[0]!.finish_reason).toBe("tool_calls");
  const calls = choices[0]!.message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[];
  expect(calls.map((one) => one.function)).toEqual([
    { name: "weather", arguments: '{"city": "Bern"}' },
    { name: "weather", arguments: `{"city": "${city}"}` },
  ]);
  expect(new Set(calls.map(({ id }) => id)).size).toBe(2);
  expect(choices[0]!.message.content).toBe("Let me see.");

  const runner = client.chat.completions.stream({ model: "m", messages, tools });
  const pieces: string[] = [];
  runner.on("tool_calls.function.arguments.delta", ({ arguments_delta }) => void pieces.push(arguments_delta));
  const { message, finish_reason } = (await runner.finalChatCompletion()).choices[0]!;
  expect(finish_reason).toBe("tool_calls");
  const streamed = message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[];
  expect(streamed.map((one) => one.function.arguments)).toEqual(calls.map((one) => one.function.arguments));
  expect(pieces.filter((piece) => piece !== "").length).toBeGreaterThan(2);
});

test("parallel_tool_calls: false ends the answer behind the first", async () => {
  script.text = `${call("Bern")}${call("Basel")}and more`;
  for (const stream of [false, true] as const) {
    const body = { model: "m", messages, tools, parallel_tool_calls: false };
    const { choices } = stream
      ? await client.chat.completions.stream(body).finalChatCompletion()
      : await client.chat.completions.create(body);
    expect(choices[0]!.message.tool_calls).toHaveLength(1);
    expect(choices[0]!.finish_reason).toBe("tool_calls");
    expect(choices[0]!.message.content ?? "").toBe("");
  }
});

test('tool_choice: "none" offers no tools; tools, calls and their answers reach the template', async () => {
  script.text = "Rainy.";
  const offered = await whatTemplatesSee(async () => {
    await client.chat.completions.create({ model: "m", messages, tools, tool_choice: "none" });
    await client.chat.completions.create({ model: "m", messages, tools });
  });
  expect(offered.map((options) => options.tools)).toEqual([null, tools]);
  const called = [
    ...messages,
    {
      role: "assistant" as const,
      content: null,
      tool_calls: [{ id: "1", type: "function" as const, function: { name: "weather", arguments: '{"city":"Bern"}' } }],
    },
    { role: "tool" as const, tool_call_id: "1", content: "rain all day" },
  ];
  await client.chat.completions.create({ model: "m", messages: called, tools, tool_choice: "auto" });
  expect(script.prompts.at(-1)).toContain("rain all day");
});

test("a call that is none comes as text", async () => {
  script.text = "<tool_call>{broken</tool_call>";
  const { choices } = await client.chat.completions.create({ model: "m", messages, tools });
  expect(choices[0]!.message.content).toBe("{broken");
});

test("reasoning_effort and chat_template_kwargs reach the template", async () => {
  script.text = "Yes.";
  const ask = (body: object) => client.chat.completions.create({ model: "m", messages, ...body });
  const seen = await whatTemplatesSee(async () => {
    await ask({ reasoning_effort: "none" });
    await ask({ reasoning_effort: "high" });
    await ask({ chat_template_kwargs: { enable_thinking: false, other: 1 } });
  });
  expect(seen[0]!.kwargs).toMatchObject({ enable_thinking: false });
  expect(seen[1]!.kwargs).toMatchObject({ enable_thinking: true, reasoning_effort: "high" });
  expect(seen[2]!.kwargs).toEqual({ enable_thinking: false, other: 1 });
});

/** What a chat template is given, each time. */
async function whatTemplatesSee(ask: () => Promise<void>): Promise<ChatOptions[]> {
  const { served, release } = await server.context.models.lease();
  const seen: ChatOptions[] = [];
  const spied = spyOn(served.tokenizer, "applyChatTemplate");
  try {
    await ask();
    for (const [, options] of spied.mock.calls) seen.push(options!);
  } finally {
    spied.mockRestore();
    release();
  }
  return seen;
}
