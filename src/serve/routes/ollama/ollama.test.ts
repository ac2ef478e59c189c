/** Ollama's own client against a server in this process. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { Ollama } from "ollama";
import { type Script, ScriptStepper, scriptedModel } from "../../../../test/script-stepper";
import { testServer } from "../../../../test/serve";
import { until } from "../../../../test/until";

const demo = testServer();
const scripted = testServer({ open: scriptedModel });
const client = new Ollama({ host: demo.url });
const told = new Ollama({ host: scripted.url });
const script: Script = { text: "", prompts: [] };
beforeAll(async () => {
  const { served, release } = await scripted.context.models.lease();
  Object.assign(served.scheduler, { stepper: new ScriptStepper(served.tokenizer, script) });
  release();
});
beforeEach(() => void script.prompts.splice(0));
afterAll(() => Promise.all([demo.stop(), scripted.stop()]));

const sum = [{ role: "user", content: "What is 27 + 58?" }];
const story = [{ role: "user", content: "Tell me a story about a fox." }];
type Options = NonNullable<Parameters<typeof client.chat>[0]["options"]>;
const ask = (options: Partial<Options>, messages = story) => client.chat({ model: "demo", messages, options });

describe("answers", () => {
  test("a chat, whole and in lines", async () => {
    const whole = await client.chat({ model: "demo:latest", messages: sum });
    expect(whole.message.content).toEndWith("85.");
    expect(whole).toMatchObject({ done: true, done_reason: "stop", model: "demo:latest" });
    expect(whole.eval_count).toBeGreaterThan(20);
    expect(whole.eval_duration).toBeGreaterThan(0);
    expect(whole.prompt_eval_count).toBeGreaterThan(10);
    const pieces: string[] = [];
    let last: object = {};
    for await (const part of await client.chat({ model: "demo", messages: sum, stream: true })) {
      pieces.push(part.message.content);
      last = part;
    }
    expect(pieces.length).toBeGreaterThan(10);
    expect(pieces.join("")).toBe(whole.message.content);
    expect(last).toMatchObject({ done: true, done_reason: "stop", eval_count: whole.eval_count });
  });

  test("a prompt, through the template or raw", async () => {
    const { response } = await client.generate({ model: "demo", prompt: "What is 27 + 58?" });
    expect(response).toEndWith("85.");
    const raw = await client.generate({ model: "demo", prompt: "Once upon a", raw: true, options: { num_predict: 4 } });
    expect(raw.response).toStartWith("time");
    expect(raw.done_reason).toBe("length");
    let streamed = "";
    for await (const part of await client.generate({ model: "demo", prompt: "What is 27 + 58?", stream: true })) {
      streamed += part.response;
    }
    expect(streamed).toBe(response!);
  });

  const base = { temperature: 1, seed: 4, num_predict: 40 };
  test.each([
    ["temperature", { temperature: 0 }],
    ["seed", { seed: 5 }],
    ["num_predict", { num_predict: 3 }],
    ["top_k", { top_k: 1 }],
    ["top_p", { top_p: 0.01 }],
    ["min_p", { min_p: 0.99 }],
    ["stop", { stop: [" a"] }],
    ["repeat_penalty", { repeat_penalty: 3 }],
    ["presence_penalty", { presence_penalty: 50 }],
    ["frequency_penalty", { frequency_penalty: 5 }],
    ["num_ctx", { num_ctx: 20 }],
  ] as [string, Partial<Options>][])("the option %s acts", async (_, change) => {
    expect((await ask({ ...base, ...change })).message.content).not.toBe((await ask(base)).message.content);
  });

  test("repeat_last_n acts", async () => {
    const penalty = { ...base, num_predict: 60, repeat_penalty: 2 };
    const texts = await Promise.all([0, -1].map((repeat_last_n) => ask({ ...penalty, repeat_last_n })));
    expect(new Set(texts.map(({ message }) => message.content)).size).toBe(2);
  });

  test("thoughts and calls of tools", async () => {
    script.text =
      '<think>A city.</think>I look.<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>';
    const parameters = { type: "object", properties: { city: { type: "string" } } };
    const tools = [{ type: "function", function: { name: "weather", description: "of a city", parameters } }];
    const whole = await told.chat({ model: "demo", messages: sum, tools, think: true });
    const calls = [{ function: { name: "weather", arguments: { city: "Bern" } } }];
    expect(whole.message).toMatchObject({ content: "I look.", thinking: "A city.", tool_calls: calls });
    let [content, thinking] = ["", ""];
    const streamed: object[] = [];
    for await (const { message } of await told.chat({ model: "demo", messages: sum, tools, stream: true })) {
      content += message.content;
      thinking += message.thinking ?? "";
      streamed.push(...(message.tool_calls ?? []));
    }
    expect([content, thinking]).toEqual(["I look.", "A city."]);
    expect(streamed).toMatchObject(calls);
    const more = [...sum, whole.message, { role: "tool", content: "much rain", tool_name: "weather" }];
    script.text = "Rain.";
    expect((await told.chat({ model: "demo", messages: more })).message.content).toBe("Rain.");
    expect(script.prompts.at(-1)).toContain("much rain");
  });
});

describe("models", () => {
  test("are listed, shown, loaded and unloaded", async () => {
    expect((await client.list()).models).toMatchObject([{ name: "demo", model: "demo", details: { family: "llama" } }]);
    expect((await client.show({ model: "demo" })).model_info).toMatchObject({ "llama.context_length": 1024 });
    expect(await (await fetch(`${demo.url}/api/version`)).json()).toEqual({ version: "0.0.0" });
    const loaded = await client.chat({ model: "demo", messages: [], keep_alive: "10m" });
    expect(loaded.done_reason).toBe("load");
    const [one] = (await client.ps()).models;
    expect(Date.parse(String(one!.expires_at)) - Date.now()).toBeGreaterThan(500_000);
    expect((await client.generate({ model: "demo", prompt: "", keep_alive: 0 })).done_reason).toBe("unload");
    expect((await client.ps()).models).toEqual([]);
    await client.chat({ model: "demo", messages: sum, options: { num_predict: 1 }, keep_alive: 1 });
    expect((await client.ps()).models).toHaveLength(1);
    await until(async () => (await client.ps()).models.length === 0);
  });

  test("texts become vectors of length 1, near to each other where they are alike", async () => {
    const { embeddings } = await client.embed({ model: "demo", input: ["a small fox", "a little fox", "27 + 58 ="] });
    const dot = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
    const [first, second, third] = embeddings;
    expect(dot(first!, first!)).toBeCloseTo(1, 5);
    expect(dot(first!, second!)).toBeGreaterThan(dot(first!, third!));
    const cut = await client.embed({ model: "demo", input: "a small fox", dimensions: 8 });
    expect(cut.embeddings[0]).toHaveLength(8);
    expect(dot(cut.embeddings[0]!, cut.embeddings[0]!)).toBeCloseTo(1, 5);
  });
});

test.each([
  ["/api/chat", { messages: sum }, /"model" must be given/],
  ["/api/chat", { model: "demo", messages: [{ role: "user", content: "x", images: ["abc"] }] }, /images/],
  ["/api/chat", { model: "demo", messages: sum, format: { not: {} } }, /"format": JSON schema: "not" at #/],
  ["/api/chat", { model: "demo", messages: sum, options: { mirostat: 1 } }, /"options.mirostat" is not supported/],
  ["/api/chat", { model: "demo", messages: sum, options: { num_ctx: 5 } }, /the model takes 5/],
  ["/api/chat", { model: "demo", messages: sum, keep_alive: "soon" }, /no time/],
  ["/api/generate", { model: "demo", prompt: "x", template: "{{ x }}" }, /"template" is not supported/],
  ["/api/generate", { model: "demo", prompt: "x", suffix: "y" }, /"suffix" is not supported/],
  ["/api/generate", { model: "demo", prompt: "x", raw: true, system: "y" }, /no place/],
])("%s %j is refused in Ollama's shape", async (path, body, message) => {
  const response = await demo.post(path, body);
  expect(response.status).toBe(400);
  expect(((await response.json()) as { error: string }).error).toMatch(message);
});
