/** Calls of tools are streamed while they are written, by every API that streams them. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { type Script, ScriptStepper, scriptedModel } from "../../test/script-stepper";
import { testServer } from "../../test/serve";

const server = testServer({ open: scriptedModel });
const openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "any", maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: server.url, apiKey: "any", maxRetries: 0 });
const script: Script = { text: "", prompts: [] };
beforeAll(async () => {
  const { served, release } = await server.context.models.lease();
  Object.assign(served.scheduler, { stepper: new ScriptStepper(served.tokenizer, script) });
  release();
});
afterAll(() => server.stop());

const parameters = { type: "object" as const, properties: { city: { type: "string" }, days: { type: "integer" } } };
const call = (city: string) => `<tool_call>{"name":"weather","arguments":{"city":"${city}","days":3}}</tool_call>`;
const cities = ["Bern, the city of the fountains and of the bears, in the middle of Switzerland", "Basel"];
const expected = cities.map((city) => ({ city, days: 3 }));
const messages = [{ role: "user" as const, content: "And in Bern?" }];

/** Pieces of each call; the long one comes in many. */
function check(calls: readonly string[][]): void {
  expect(calls.map((pieces) => JSON.parse(pieces.join("")))).toEqual(expected);
  expect(calls[0]!.filter((piece) => piece !== "").length).toBeGreaterThan(8);
}

for (const [how, text] of [
  ["apart", `Let me see.${cities.map(call).join("")}`],
  [
    "as a list",
    `<tool_call>[${cities.map((city) => `{"name":"weather","arguments":{"city":"${city}","days":3}}`).join(", ")}]</tool_call>`,
  ],
] as const) {
  test(`OpenAI's chat: two calls ${how}`, async () => {
    script.text = text;
    const tools = [{ type: "function" as const, function: { name: "weather", parameters } }];
    const calls: string[][] = [];
    const stream = await openai.chat.completions.create({ model: "m", messages, tools, stream: true });
    for await (const { choices } of stream) {
      for (const { index, function: given } of choices[0]!.delta.tool_calls ?? []) {
        if (given?.name) calls[index] = [];
        calls[index]!.push(given!.arguments!);
      }
    }
    check(calls);
    const whole = await openai.chat.completions.create({ model: "m", messages, tools });
    const given = whole.choices[0]!.message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[];
    expect(given.map((one) => one.function.arguments)).toEqual(calls.map((pieces) => pieces.join("")));
  });

  test(`Anthropic's messages: two calls ${how}`, async () => {
    script.text = text;
    const tools = [{ name: "weather", input_schema: parameters }];
    const calls = new Map<number, string[]>();
    const stream = anthropic.messages.stream({ model: "m", max_tokens: 200, messages, tools });
    for await (const event of stream) {
      if (event.type === "content_block_start" && event.content_block.type === "tool_use") calls.set(event.index, []);
      if (event.type === "content_block_delta" && event.delta.type === "input_json_delta")
        calls.get(event.index)!.push(event.delta.partial_json);
    }
    check([...calls.values()]);
    const { content, stop_reason } = await stream.finalMessage();
    expect(stop_reason).toBe("tool_use");
    expect(content.flatMap((block) => (block.type === "tool_use" ? [block.input] : []))).toEqual(expected);
  });

  test(`OpenAI's responses: two calls ${how}`, async () => {
    script.text = text;
    const tools = [{ type: "function" as const, name: "weather", parameters, strict: false }];
    const calls = new Map<string, string[]>();
    const stream = await openai.responses.create({ model: "m", input: "And in Bern?", tools, stream: true });
    for await (const event of stream) {
      if (event.type === "response.output_item.added" && event.item.type === "function_call")
        calls.set(event.item.id!, []);
      if (event.type === "response.function_call_arguments.delta") calls.get(event.item_id)!.push(event.delta);
      if (event.type === "response.function_call_arguments.done")
        expect(event.arguments).toBe(calls.get(event.item_id)!.join(""));
      if (event.type === "response.completed") {
        const given = event.response.output.flatMap((item) => (item.type === "function_call" ? [item.arguments] : []));
        expect(given).toEqual([...calls.values()].map((pieces) => pieces.join("")));
      }
    }
    check([...calls.values()]);
  });
}

test("a call that is cut ends where the answer does, and is no text", async () => {
  script.text = call(cities[0]!).slice(0, 90);
  const tools = [{ type: "function" as const, function: { name: "weather", parameters } }];
  let [given, text] = ["", ""];
  for await (const { choices } of await openai.chat.completions.create({ model: "m", messages, tools, stream: true })) {
    for (const one of choices[0]!.delta.tool_calls ?? []) given += one.function?.arguments ?? "";
    text += choices[0]!.delta.content ?? "";
  }
  expect(given).toStartWith('{"city": "Bern, the city');
  expect(text).toBe("");
});
