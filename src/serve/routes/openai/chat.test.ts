/** OpenAI's SDK against a server in this process. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import OpenAI from "openai";
import { type Script, ScriptStepper, scriptedModel } from "../../../../test/script-stepper";
import { testServer } from "../../../../test/serve";
import { until } from "../../../../test/until";

const server = testServer();
const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "any", maxRetries: 0 });
beforeAll(async () => (await server.context.models.lease()).release());
afterAll(() => server.stop());

const sum = [{ role: "user" as const, content: "What is 27 + 58?" }];
const story = [{ role: "user" as const, content: "Tell me a story about a fox." }];
type Create = Omit<OpenAI.ChatCompletionCreateParamsNonStreaming, "model"> & Record<string, unknown>;
const ask = (body: Create) => client.chat.completions.create({ model: "demo", ...body });
const textOf = async (body: Create) => (await ask(body)).choices[0]!.message.content!;

describe("a chat", () => {
  test("is answered whole, with usage", async () => {
    const answer = await client.chat.completions.create({ model: "gpt-4o", messages: sum });
    expect(answer.choices[0]!.message).toMatchObject({ role: "assistant", refusal: null });
    expect(answer.choices[0]!.message.content).toEndWith("27 + 58 = 85.");
    expect(answer.choices[0]!.finish_reason).toBe("stop");
    expect(answer).toMatchObject({ object: "chat.completion", model: "gpt-4o" });
    const { prompt_tokens, completion_tokens, total_tokens } = answer.usage!;
    expect(prompt_tokens).toBeGreaterThan(10);
    expect(completion_tokens).toBeGreaterThan(20);
    expect(total_tokens).toBe(prompt_tokens + completion_tokens);
  });

  test("streams the same text in pieces, usage last where asked for", async () => {
    const expected = await textOf({ messages: sum });
    const stream = await client.chat.completions.create({
      ...{ model: "demo", messages: sum, stream: true },
      stream_options: { include_usage: true },
    });
    const pieces: string[] = [];
    let reason: string | null = null;
    let usage: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of stream) {
      expect(usage ?? null).toBeNull();
      usage = chunk.usage;
      if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
      reason = chunk.choices[0]?.finish_reason ?? reason;
    }
    expect(pieces.length).toBeGreaterThan(10);
    expect(pieces.join("")).toBe(expected);
    expect(reason).toBe("stop");
    expect(usage!.completion_tokens).toBeGreaterThan(20);
  });

  test("the SDK's own stream helper understands it", async () => {
    const runner = client.chat.completions.stream({ model: "demo", messages: sum });
    expect(await runner.finalContent()).toEndWith("85.");
  });

  test("n answers differ by their seeds, and a seed repeats itself in any company", async () => {
    const body = { messages: story, n: 3, seed: 5, temperature: 1, max_tokens: 20 };
    const [first, again] = await Promise.all([ask(body), ask(body), textOf({ messages: sum })]);
    const texts = first.choices.map(({ message }) => message.content);
    expect(new Set(texts).size).toBe(3);
    expect(again.choices.map(({ message }) => message.content)).toEqual(texts);
    expect(first.choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(await textOf({ ...body, n: 1 })).toBe(texts[0]!);
  });

  test("logprobs are those of the tokens, streamed or not", async () => {
    const body = { messages: sum, logprobs: true, top_logprobs: 3, max_tokens: 6 };
    const { choices } = await ask(body);
    const content = choices[0]!.logprobs!.content!;
    expect(content).toHaveLength(6);
    expect(content.map(({ token }) => token).join("")).toBe(choices[0]!.message.content!);
    for (const { token, logprob, top_logprobs } of content) {
      expect(top_logprobs).toHaveLength(3);
      expect(top_logprobs[0]).toMatchObject({ token, logprob });
      expect(top_logprobs[1]!.logprob).toBeLessThanOrEqual(logprob);
    }
    const streamed: string[] = [];
    for await (const chunk of await client.chat.completions.create({ model: "demo", ...body, stream: true })) {
      for (const { token } of chunk.choices[0]?.logprobs?.content ?? []) streamed.push(token);
    }
    expect(streamed).toEqual(content.map(({ token }) => token));
  });
});

test("role_mapping says what stands before each role's text", async () => {
  const script: Script = { text: "Yes.", prompts: [] };
  const plain = testServer({
    async open() {
      const opened = await scriptedModel();
      Object.defineProperty(opened.tokenizer, "hasChatTemplate", { value: false });
      return opened;
    },
  });
  const { served, release } = await plain.context.models.lease();
  Object.assign(served.scheduler, { stepper: new ScriptStepper(served.tokenizer, script) });
  release();
  const messages = [
    { role: "system", content: "Be brief." },
    { role: "user", content: "Is it?" },
  ];
  const role_mapping = { system: "S: ", user: "U: ", assistant: "A: ", stop: "|" };
  for (const more of [{}, { role_mapping }]) await plain.post("/v1/chat/completions", { messages, ...more });
  expect(script.prompts).toEqual([
    expect.stringContaining("ASSISTANT's RULE: Be brief.\nUSER: Is it?\nASSISTANT:"),
    expect.stringContaining("S: Be brief.|U: Is it?|A:"),
  ]);
  await plain.stop();
});

/** Each field with a value that changes the answer to this request. */
const base: Create = { messages: story, max_tokens: 24, temperature: 1, seed: 1 };

const changing: [string, Partial<Create>][] = [
  ["messages", { messages: sum }],
  ["max_tokens", { max_tokens: 3 }],
  ["max_completion_tokens", { max_completion_tokens: 3 }],
  ["temperature", { temperature: 0 }],
  ["top_p", { top_p: 0.01 }],
  ["top_k", { top_k: 1 }],
  ["min_p", { min_p: 0.99 }],
  ["xtc_probability", { xtc_probability: 1, xtc_threshold: 0.01 }],
  ["seed", { seed: 2 }],
  ["stop", { stop: " a" }],
  ["repetition_penalty", { repetition_penalty: 3, temperature: 0.01 }],
  ["presence_penalty", { presence_penalty: 5 }],
  ["frequency_penalty", { frequency_penalty: 5 }],
  ["logit_bias", { logit_bias: { 40: 50 } }],
];

describe("every field acts", () => {
  test.each(changing)("%s", async (_, change) => {
    const usual = await textOf(base);
    const changed = await textOf({ ...base, ...change });
    expect(changed).not.toBe(usual);
  });

  test.each([
    ["presence_context_size", { presence_penalty: 5 }],
    ["frequency_context_size", { frequency_penalty: 5 }],
    ["repetition_context_size", { repetition_penalty: 3 }],
  ])("%s", async (field, penalty) => {
    const body = { ...base, ...penalty, max_tokens: 60 };
    expect(await textOf({ ...body, [field]: 1 })).not.toBe(await textOf({ ...body, [field]: 100 }));
  });

  test("stop texts are no part of the answer", async () => {
    const { choices } = await ask({ messages: sum, stop: ["zebra", " and carry"] });
    expect(choices[0]!.message.content).toBe("7 + 8 = 15, so 5");
    expect(choices[0]!.finish_reason).toBe("stop");
  });

  test("an answer that has begun is gone on with", async () => {
    const begun = { role: "assistant" as const, content: "7 + 8 = 15, so 5 and carry 1. 2 + 5 + 1 = 8. 27 + 58 =" };
    expect(await textOf({ messages: [...sum, begun] })).toBe("85.");
  });
});

const refused: [string, Record<string, unknown>, RegExp][] = [
  ["messages", { messages: undefined }, /must be given/],
  ["messages", { messages: [] }, /messages/],
  ["messages.0.role", { messages: [{ role: "wizard", content: "x" }] }, /role/],
  ["messages.0.content.0", { messages: [{ role: "user", content: [{ type: "image_url" }] }] }, /only parts of text/],
  ["tempreature", { tempreature: 1 }, /did you mean "temperature"/],
  ["suffix", { suffix: "x" }, /not supported/],
  ["chat_template", { chat_template: "{{ x }}" }, /not supported/],
  ["response_format", { response_format: { type: "json_schema", json_schema: { schema: { not: {} } } } }, /"not" at #/],
  ["response_format.type", { response_format: { type: "xml" } }, /'json_schema'/],
  [
    "response_format",
    {
      response_format: {
        type: "json_schema",
        json_schema: { schema: { type: "object", properties: { a: { $ref: "#" } }, required: ["a"] } },
      },
    },
    /without end at #/,
  ],
  ["guided_regex", { guided_regex: "a(?=b)" }, /not supported/],
  ["guided_grammar", { guided_grammar: "root ::= other" }, /other/],
  ["tool_choice", { tool_choice: "required", tools: [{ type: "function", function: { name: "f" } }] }, /not trained/],
  ["tool_choice", { tool_choice: "required" }, /needs "tools"/],
  ["top_logprobs", { top_logprobs: 3 }, /needs "logprobs"/],
  ["store", { store: true }, /store/],
  ["adapters", { adapters: "pirate" }, /no adapter/],
  ["adapters", { adapters: "../../etc/passwd" }, /no adapter/],
  ["draft_model", { draft_model: "/etc" }, /draft_model/],
  ["logit_bias", { logit_bias: { 999999: 1 } }, /does not know/],
  ["logit_bias", { logit_bias: { x: 1 } }, /does not know/],
  ["chat_template_kwargs.messages", { chat_template_kwargs: { messages: [] } }, /variable/],
  ["role_mapping", { role_mapping: { user: "U: " } }, /without a chat template/],
  ["stop", { stop: new Array(65).fill("x") }, /stop/],
];

const bounds: [string, number, number][] = [
  ["temperature", 0, 100],
  ["top_p", 0, 1],
  ["min_p", 0, 1],
  ["top_k", -1, 1e9],
  ["n", 1, 64],
  ["max_tokens", 1, 1e9],
  ["max_completion_tokens", 1, 1e9],
  ["xtc_probability", 0, 1],
  ["xtc_threshold", 0, 0.5],
  ["repetition_penalty", 0, 1e6],
  ["repetition_context_size", 1, 1e9],
  ["presence_penalty", -1e6, 1e6],
  ["frequency_penalty", -1e6, 1e6],
  ["top_logprobs", 0, 20],
];

describe("what is wrong is refused by name", () => {
  const post = (body: object) => server.post("/v1/chat/completions", { messages: sum, max_tokens: 2, ...body });
  const expectRefusal = async (response: Response, param: string) => {
    const { error } = (await response.json()) as { error: Record<string, string> };
    expect(error).toMatchObject({ param, type: response.status === 404 ? "not_found_error" : "invalid_request_error" });
    return error.message;
  };

  test.each(refused)("%s: %j", async (param, body, message) => {
    const response = await post(body);
    expect(response.status).toBe(param === "adapters" ? 404 : 400);
    expect(await expectRefusal(response, param)).toMatch(message);
  });

  test.each(bounds)("%s outside of %d to %d, or no number", async (field, least, most) => {
    for (const value of [least - 1, most + 1, "1", true, [], "NaN"]) {
      const response = await post({ [field]: value });
      expect(response.status).toBe(400);
      await expectRefusal(response, field);
    }
  });

  test("a prompt beyond the context", async () => {
    const response = await post({ messages: [{ role: "user", content: "word ".repeat(3000) }] });
    expect(response.status).toBe(400);
    expect(((await response.json()) as { error: { message: string } }).error.message).toMatch(/the model takes 1024/);
  });

  test.each(["", "{", "[]", "null", "1", '"x"', '{"messages": NaN}'])("the body %j", async (body) => {
    expect((await server.post("/v1/chat/completions", body)).status).toBe(400);
  });

  test("bytes that are no UTF-8, and JSON that is nested deep", async () => {
    const bytes = await fetch(`${server.url}/v1/chat/completions`, {
      method: "POST",
      body: new Uint8Array([0x7b, 0xff, 0x7d]),
    });
    expect(bytes.status).toBe(400);
    const deep = `{"messages":${"[".repeat(100_000)}${"]".repeat(100_000)}}`;
    expect((await server.post("/v1/chat/completions", deep)).status).toBe(400);
  });

  test("the SDK throws its own errors", async () => {
    const error = await ask({ messages: sum, top_p: 7 }).catch((error) => error);
    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
    expect(error.param).toBe("top_p");
    expect(await client.models.retrieve("nothing").catch((error) => error)).toBeInstanceOf(OpenAI.NotFoundError);
  });
});

describe("a client that goes away", () => {
  const scheduler = () => server.context.models.loaded[0]!.served.scheduler;

  test.each([true, false])("ends its answer: stream %p", async (stream) => {
    const controller = new AbortController();
    const body = { messages: story, max_tokens: 900, logit_bias: { 0: -100, 2: -100 }, stream };
    const request = server.post("/v1/chat/completions", body, { signal: controller.signal });
    if (stream) {
      const reader = (await request).body!.getReader();
      await reader.read();
    }
    await until(() => scheduler().running === 1);
    controller.abort();
    await request.catch(() => {});
    await until(() => scheduler().running === 0);
    expect(await textOf({ messages: sum })).toEndWith("85.");
  });
});
