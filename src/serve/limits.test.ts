/** What no request may have: numbers out of their ranges on every route, keys of objects' own, more stop texts than 64. */
import { afterAll, beforeAll, describe, expect, spyOn, test } from "bun:test";
import { testServer } from "../../test/serve";

const server = testServer();
beforeAll(async () => (await server.context.models.lease()).release());
afterAll(() => server.stop());

const messages = [{ role: "user", content: "Tell me a story about a fox." }];
type Body = Record<string, unknown>;
const usual: Record<string, Body> = {
  "/v1/chat/completions": { messages, max_tokens: 2 },
  "/v1/completions": { prompt: "Once upon a", max_tokens: 2 },
  "/v1/responses": { input: "Hello", max_output_tokens: 2 },
  "/v1/messages": { model: "m", messages, max_tokens: 2 },
  "/v1/embeddings": { input: "a fox" },
  "/api/chat": { model: "m", messages, stream: false, options: { num_predict: 2 } },
  "/api/embed": { model: "m", input: "a fox" },
};

/** A body with a value at a path. */
function having(body: Body, [name, ...rest]: string[], value: unknown): Body {
  return { ...body, [name!]: rest.length === 0 ? value : having((body[name!] ?? {}) as Body, rest, value) };
}

const big = 2 ** 53 - 1;
const sampling: [string, number, number][] = [
  ["temperature", 0, 100],
  ["top_p", 0, 1],
  ["min_p", 0, 1],
  ["top_k", -1, 1e9],
  ["seed", -big, big],
  ["xtc_probability", 0, 1],
  ["xtc_threshold", 0, 0.5],
  ["repetition_penalty", 0, 1e6],
  ["repetition_context_size", 1, 1e9],
  ["presence_penalty", -1e6, 1e6],
  ["presence_context_size", 1, 1e9],
  ["frequency_penalty", -1e6, 1e6],
  ["frequency_context_size", 1, 1e9],
  ["logit_bias.5", -1e6, 1e6],
  ["n", 1, 64],
  ["max_tokens", 1, 1e9],
];
const bounds: [route: string, field: string, least: number, most: number][] = [
  ...sampling.map((row) => ["/v1/chat/completions", ...row] as [string, string, number, number]),
  ["/v1/chat/completions", "max_completion_tokens", 1, 1e9],
  ["/v1/chat/completions", "thinking_budget", 0, 1e9],
  ...sampling.map((row) => ["/v1/completions", ...row] as [string, string, number, number]),
  ["/v1/completions", "logprobs", 0, 20],
  ["/v1/responses", "max_output_tokens", 1, 1e9],
  ["/v1/responses", "temperature", 0, 100],
  ["/v1/responses", "top_p", 0, 1],
  ["/v1/responses", "top_logprobs", 0, 20],
  ["/v1/messages", "max_tokens", 1, 1e9],
  ["/v1/messages", "temperature", 0, 100],
  ["/v1/messages", "top_p", 0, 1],
  ["/v1/messages", "top_k", 0, 1e9],
  ["/v1/embeddings", "dimensions", 1, 1e6],
  ["/api/chat", "options.num_predict", -2, 1e9],
  ["/api/chat", "options.temperature", 0, 100],
  ["/api/chat", "options.top_k", -1, 1e9],
  ["/api/chat", "options.top_p", 0, 1],
  ["/api/chat", "options.min_p", 0, 1],
  ["/api/chat", "options.seed", -big, big],
  ["/api/chat", "options.repeat_penalty", 0, 1e6],
  ["/api/chat", "options.repeat_last_n", -1, 1e9],
  ["/api/chat", "options.presence_penalty", -1e6, 1e6],
  ["/api/chat", "options.frequency_penalty", -1e6, 1e6],
  ["/api/chat", "options.num_ctx", 1, 1e9],
  ["/api/embed", "dimensions", 1, 1e6],
];

test.each(bounds)("numbers: %s %s outside of %d to %d, infinite, or no number", async (route, field, least, most) => {
  // Beyond 2⁵³ the next number is two further.
  const wrong = [least - 2, most + 2, "1", "NaN", true, [], {}];
  const bodies = wrong.map((value) => JSON.stringify(having(usual[route]!, field.split("."), value)));
  const infinite = JSON.stringify(having(usual[route]!, field.split("."), "endless")).replace('"endless"', "1e999");
  for (const body of [...bodies, infinite]) {
    const response = await server.post(route, body);
    const text = await response.text();
    expect([body, response.status]).toEqual([body, 400]);
    expect(text).toContain(field);
  }
});

test("64 stop texts are taken, and the last one ends the answer", async () => {
  const stop = [...Array.from({ length: 63 }, (_, i) => `zebra ${i}`), " a"];
  const ask = async (more: Body) => {
    const response = await server.post("/v1/chat/completions", { messages, max_tokens: 20, ...more });
    return ((await response.json()) as { choices: { message: { content: string } }[] }).choices[0]!.message.content;
  };
  const free = await ask({});
  expect(free).toContain(" a");
  expect(await ask({ stop })).toBe(free.slice(0, free.indexOf(" a")));
});

test.each([
  ["/v1/completions", "prompt", [], /"prompt": Too small/],
  ["/v1/completions", "prompt", new Array(65).fill("a"), /"prompt": Too big/],
  ["/v1/embeddings", "input", [], /"input": Too small/],
  ["/v1/embeddings", "input", new Array(2049).fill("a"), /"input": Too big/],
])("lists that are empty or too long are called so: %s %s", async (route, field, list, message) => {
  const response = await server.post(route, { ...usual[route], [field]: list });
  const { error } = (await response.json()) as { error: { message: string; param: string } };
  expect([response.status, error.param]).toEqual([400, field]);
  expect(error.message).toMatch(message);
});

describe("names that every object has", () => {
  test.each([
    ['"__proto__": {"max_tokens": 1}', "__proto__"],
    ['"constructor": 1', "constructor"],
    ['"toString": 1', "toString"],
    ['"logit_bias": {"__proto__": 5}', "__proto__"],
    ['"chat_template_kwargs": {"a": {"__proto__": {}}}', "__proto__"],
  ])("are no fields: %s", async (field, name) => {
    const body = `{"messages": ${JSON.stringify(messages)}, "max_tokens": 2, ${field}}`;
    const response = await server.post("/v1/chat/completions", body);
    expect(response.status).toBe(400);
    expect(await response.text()).toContain(name);
  });
});

test("another method on a route is no route", async () => {
  for (const method of ["GET", "PUT", "DELETE", "PATCH"]) {
    expect((await fetch(`${server.url}/v1/messages`, { method })).status).toBe(404);
  }
});

test("a client that leaves stops the model within a step", async () => {
  const { served, release } = await server.context.models.lease();
  const forward = spyOn(served.model, "forward");
  const enter = spyOn(served.scheduler, "enter");
  const controller = new AbortController();
  const body = { messages, max_tokens: 900, logit_bias: { 0: -100, 2: -100 }, stream: true };
  const response = await server.post("/v1/chat/completions", body, { signal: controller.signal });
  const reader = response.body!.getReader();
  await reader.read();
  const [, , signal] = enter.mock.calls[0]!;
  const heard = Promise.withResolvers<number>();
  signal!.addEventListener("abort", () => heard.resolve(forward.mock.calls.length));
  while (forward.mock.calls.length < 5) await Bun.sleep(1);
  controller.abort();
  const atThatTime = await heard.promise;
  while (served.scheduler.running > 0) await Bun.sleep(1);
  await Bun.sleep(20);
  expect(forward.mock.calls.length - atThatTime).toBeLessThanOrEqual(1);
  for (const spied of [forward, enter]) spied.mockRestore();
  release();
});
