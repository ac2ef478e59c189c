/** The responses of OpenAI's SDK against a server in this process. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import OpenAI from "openai";
import { type Script, ScriptStepper, scriptedModel } from "../../../../test/script-stepper";
import { testServer } from "../../../../test/serve";
import { ResponseStore } from "./store";

const demo = testServer();
const scripted = testServer({ open: scriptedModel });
const client = new OpenAI({ baseURL: `${demo.url}/v1`, apiKey: "any", maxRetries: 0 });
const told = new OpenAI({ baseURL: `${scripted.url}/v1`, apiKey: "any", maxRetries: 0 });
const script: Script = { text: "", prompts: [] };
beforeAll(async () => {
  const { served, release } = await scripted.context.models.lease();
  Object.assign(served.scheduler, { stepper: new ScriptStepper(served.tokenizer, script) });
  release();
});
beforeEach(() => void script.prompts.splice(0));
afterAll(() => Promise.all([demo.stop(), scripted.stop()]));

const input = "What is 27 + 58?";
const story = "Tell me a story about a fox.";

describe("a response", () => {
  test("whole and streamed", async () => {
    const response = await client.responses.create({ model: "demo", input });
    expect(response.output_text).toEndWith("85.");
    expect(response).toMatchObject({ object: "response", status: "completed", error: null, model: "demo" });
    expect(response.usage!.output_tokens).toBeGreaterThan(20);
    const stream = client.responses.stream({ model: "demo", input });
    const types: string[] = [];
    const numbers: number[] = [];
    let text = "";
    for await (const one of stream) {
      types.push(one.type);
      numbers.push(one.sequence_number);
      if (one.type === "response.output_text.delta") text += one.delta;
    }
    expect(text).toBe(response.output_text);
    expect(numbers).toEqual(numbers.map((_, i) => i));
    expect([...new Set(types)]).toEqual([
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
      "response.output_text.delta",
      "response.output_text.done",
      "response.content_part.done",
      "response.output_item.done",
      "response.completed",
    ]);
    expect((await stream.finalResponse()).output_text).toBe(text);
  });

  test("is gone on with, read again, and forgotten", async () => {
    script.text = "Bern.";
    const first = await told.responses.create({ model: "m", input: "Name a city.", instructions: "Be brief." });
    script.text = "Rainy.";
    const second = await told.responses.create({
      model: "m",
      input: "And its weather?",
      previous_response_id: first.id,
    });
    expect(second.output_text).toBe("Rainy.");
    expect(script.prompts[0]).toContain("Be brief.");
    expect(script.prompts[1]).toMatch(/Name a city\.[\s\S]*Bern\.[\s\S]*And its weather\?/);
    expect(script.prompts[1]).not.toContain("Be brief.");
    expect(await told.responses.retrieve(second.id)).toMatchObject({ id: second.id, previous_response_id: first.id });
    const { data } = await told.responses.inputItems.list(second.id);
    expect(data).toHaveLength(3);
    await told.responses.delete(second.id);
    expect(await told.responses.retrieve(second.id).catch((error) => error)).toBeInstanceOf(OpenAI.NotFoundError);
    const unknown = told.responses.create({ model: "m", input, previous_response_id: "resp_x" });
    expect(await unknown.catch((error) => error)).toMatchObject({ status: 404, param: "previous_response_id" });
  });

  test("that is not to be stored is not", async () => {
    const { id } = await client.responses.create({ model: "demo", input, store: false, max_output_tokens: 2 });
    expect(await client.responses.retrieve(id).catch((error) => error)).toBeInstanceOf(OpenAI.NotFoundError);
  });

  test("that is cut short says so", async () => {
    const response = await client.responses.create({ model: "demo", input, max_output_tokens: 4 });
    expect(response).toMatchObject({ status: "incomplete", incomplete_details: { reason: "max_output_tokens" } });
  });

  test.each([
    ["temperature", { temperature: 1 }],
    ["max_output_tokens", { max_output_tokens: 3 }],
  ])("%s acts", async (_, change) => {
    const base = { model: "demo", input: story, max_output_tokens: 30 };
    const usual = await client.responses.create(base);
    expect((await client.responses.create({ ...base, ...change })).output_text).not.toBe(usual.output_text);
    const narrow = await client.responses.create({ ...base, temperature: 1, top_p: 0.0001 });
    expect(narrow.output_text).toBe(usual.output_text);
  });

  test("log-probabilities where they are asked for", async () => {
    const include = ["message.output_text.logprobs" as const];
    const { output } = await client.responses.create({
      model: "demo",
      input,
      include,
      top_logprobs: 2,
      max_output_tokens: 5,
    });
    const [message] = output as OpenAI.Responses.ResponseOutputMessage[];
    const [part] = message!.content as OpenAI.Responses.ResponseOutputText[];
    expect(part!.logprobs).toHaveLength(5);
    expect(part!.logprobs![0]!.top_logprobs).toHaveLength(2);
  });
});

const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function" as const, name: "weather", description: "of a city", parameters, strict: false }];
const call = (city: string) => `<tool_call>{"name": "weather", "arguments": {"city": "${city}"}}</tool_call>`;

describe("thoughts and tools", () => {
  test("are items of their own, and come back as the conversation goes on", async () => {
    script.text = `<think>A city.</think>I look.${call("Bern")}${call("Basel".repeat(20))}`;
    const include = ["reasoning.encrypted_content" as const];
    const body = { model: "m", input: "Weather?", tools, include, store: false };
    const response = await told.responses.create(body);
    expect(response.output.map(({ type }) => type)).toEqual(["reasoning", "message", "function_call", "function_call"]);
    const calls = response.output.filter((item) => item.type === "function_call");
    expect(calls[0]).toMatchObject({ name: "weather", arguments: '{"city": "Bern"}', status: "completed" });
    expect(response.usage!.output_tokens_details.reasoning_tokens).toBeGreaterThan(2);

    const final = await told.responses.stream(body).finalResponse();
    expect(final.output.map(({ type }) => type)).toEqual(response.output.map(({ type }) => type));
    const streamed = final.output.filter((item) => item.type === "function_call");
    expect(streamed.map((one) => one.arguments)).toEqual(calls.map((one) => one.arguments));

    script.text = "Rain.";
    // As a client does that keeps a thought only in its packed form.
    const kept = response.output.map((item) => (item.type === "reasoning" ? { ...item, content: undefined } : item));
    const outputs = calls.map(({ call_id }) => ({
      type: "function_call_output" as const,
      call_id,
      output: "much rain",
    }));
    const items = [
      { role: "user" as const, content: "Weather?" },
      ...kept,
      ...outputs,
    ] as OpenAI.Responses.ResponseInput;
    expect((await told.responses.create({ model: "m", input: items, tools })).output_text).toBe("Rain.");
    expect(script.prompts.at(-1)).toMatch(/I look\.[\s\S]*much rain[\s\S]*much rain/);
  });

  test("functions in a namespace are offered, and calls say where they belong", async () => {
    script.text = call("Bern");
    const inner = [{ type: "namespace", name: "sky", description: "above", tools }];
    const body = { model: "m", input: "Weather?", tools: inner, client_metadata: { session_id: "1" } };
    const { output } = await told.responses.create(body as never);
    expect(output[0]).toMatchObject({ type: "function_call", name: "weather", namespace: "sky" });
    script.text = "Rain.";
    const answered = {
      type: "function_call_output",
      call_id: (output[0] as { call_id: string }).call_id,
      output: "wet",
    };
    const items = [{ role: "user", content: "Weather?" }, ...output, answered];
    expect((await told.responses.create({ ...body, input: items } as never)).output_text).toBe("Rain.");
    expect(script.prompts.at(-1)).toContain("wet");
  });

  test("one call is enough where they are not to be parallel", async () => {
    script.text = call("Bern") + call("Basel");
    const { output } = await told.responses.create({ model: "m", input, tools, parallel_tool_calls: false });
    expect(output).toHaveLength(1);
  });
});

test.each([
  [{ input: undefined }, "input"],
  [{ input: [] }, "input"],
  [{ input: [{ type: "item_reference", id: "x" }] }, "input.0"],
  [{ tools: [{ type: "web_search" }] }, "tools.0"],
  [{ tools: [{ ...tools[0], strict: true }] }, "tools"],
  [{ text: { format: { type: "json_schema", name: "x", schema: { not: {} } } } }, "text.format"],
  [{ tools, tool_choice: "required" }, "tool_choice"],
  [{ background: true }, "background"],
  [{ truncation: "auto" }, "truncation"],
  [{ conversation: "x" }, "conversation"],
  [{ max_output_tokens: 0 }, "max_output_tokens"],
])("%j is refused by name", async (body, param) => {
  const response = await demo.post("/v1/responses", { model: "demo", input, ...body });
  expect(response.status).toBe(400);
  expect(((await response.json()) as { error: { param: string } }).error.param).toStartWith(param);
});

test("the store forgets the oldest where it has too much", () => {
  const store = new ResponseStore(500);
  const item = { role: "user" as const, content: "x".repeat(200) };
  for (const id of ["a", "b", "c"]) store.put({ response: { id }, input: [item], output: [] });
  expect(() => store.get("a")).toThrow(/forgotten/);
  expect(store.get("c").input).toEqual([item]);
});
