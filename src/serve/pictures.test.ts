/** Pictures over HTTP, in each API's form, by a model that sees: mlx-lm's tokens for the same pictures and words. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { answer, pictures, saveSeeingModel } from "../../test/seeing-model";
import { testServer } from "../../test/serve";
import { until } from "../../test/until";
import { openModel } from "../generate/open-model";
import * as mx from "../mlx";
import { loadTokenizer } from "../text/tokenizer";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-pictures-"));
afterAll(() => rmSync(folder, { recursive: true }));

// A message is a message, and an answer has no header.
const chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}";
const path = saveSeeingModel(join(folder, "seeing"), undefined, { chat_template });
// Without the type's defaults, by which answers begin with a header.
const open = async () => ({ ...(await openModel(path)), tokenizer: await loadTokenizer(path) });
const server = testServer({ open });
const blind = testServer();
afterAll(() => Promise.all([server.stop(), blind.stop()]));

const png = pictures.PNG!.file;
const jpeg = pictures.JPEG!.file;
/** The words around the two places for pictures. */
const [before, between, after] = answer.asked.split("<|patch|>") as [string, string, string];

const openAi = (first: string, second: string) => [
  { type: "text", text: before },
  { type: "image_url", image_url: { url: first, detail: "auto" } },
  { type: "text", text: between },
  { type: "image_url", image_url: { url: second } },
  { type: "text", text: after },
];
const urls = [`data:image/png;base64,${png}`, `data:image/jpeg;base64,${jpeg}`] as const;
const block = (media_type: string, data: string) => ({ type: "image", source: { type: "base64", media_type, data } });
const chat = { messages: [{ role: "user", content: openAi(...urls) }], max_tokens: 12, temperature: 0 };

/** What of the answers is looked at. */
interface Reply {
  choices: { message: { content: string } }[];
  output: { content: { text: string }[] }[];
  content: { text: string }[];
  message: { content: string };
  response: string;
  capabilities: string[];
  usage: { input_tokens: number };
  error: { message: string; param: string };
}
const forms: [string, string, object, (answer: Reply) => string][] = [
  ["OpenAI's chat", "/v1/chat/completions", chat, ({ choices }) => choices[0]!.message.content],
  [
    "OpenAI's responses",
    "/v1/responses",
    {
      input: [
        {
          role: "user",
          content: [
            { type: "input_text", text: before },
            { type: "input_image", image_url: urls[0] },
            { type: "input_text", text: between },
            { type: "input_image", image_url: urls[1], detail: "auto" },
            { type: "input_text", text: after },
          ],
        },
      ],
      max_output_tokens: 12,
      temperature: 0,
    },
    ({ output }) => output[0]!.content[0]!.text,
  ],
  [
    "Anthropic's messages",
    "/v1/messages",
    {
      model: "m",
      max_tokens: 12,
      messages: [
        {
          role: "user",
          content: [
            { type: "text", text: before },
            block("image/png", png),
            { type: "text", text: between },
            block("image/jpeg", jpeg),
            { type: "text", text: after },
          ],
        },
      ],
    },
    ({ content }) => content[0]!.text,
  ],
];

const tokensOf = (text: string) =>
  text
    .trim()
    .split(/\s+/)
    .map((word) => Number(word.slice(1)));

const ask = async (path: string, body: object) => (await (await server.post(path, body)).json()) as Reply;

describe("a picture in each API's form reaches the model", () => {
  test.each(forms)("%s: mlx-lm's tokens", async (_, path, body, textOf) => {
    const asked = [ask(path, body), ask(path, body)];
    for (const answered of await Promise.all(asked)) expect(tokensOf(textOf(answered))).toEqual(answer.tokens);
  });

  test("Ollama's chat and prompt: pictures stand ahead of the text", async () => {
    const ahead = [...openAi(...urls).filter(({ type }) => type === "image_url"), { type: "text", text: "w13 w99" }];
    const expected = await ask("/v1/chat/completions", { ...chat, messages: [{ role: "user", content: ahead }] });
    const shared = { model: "m", stream: false, options: { num_predict: 12, temperature: 0 } };
    const message = { role: "user", content: "w13 w99", images: [png, jpeg] };
    const chatted = await ask("/api/chat", { ...shared, messages: [message] });
    const said = await ask("/api/generate", { ...shared, prompt: "w13 w99", images: [png, jpeg] });
    expect([chatted.message.content, said.response]).toEqual(new Array(2).fill(expected.choices[0]!.message.content));
    const other = await ask("/api/generate", { ...shared, prompt: "w13 w99", images: [jpeg, png] });
    expect(other.response).not.toBe(said.response);
    const { capabilities } = await ask("/api/show", { model: "m" });
    expect(capabilities).toContain("vision");
  });
});

test("other pictures in the same places are other prompts, and nothing stays behind", async () => {
  const body = (first: string, second: string) => ({
    ...chat,
    messages: [{ role: "user", content: openAi(first, second) }],
  });
  const text = async (...two: [string, string]) => {
    const { choices } = await ask("/v1/chat/completions", body(...two));
    return choices[0]!.message.content;
  };
  const one = await text(...urls);
  await text(urls[0], urls[0]);
  const { scheduler } = server.context.models.loaded[0]!.served;
  await until(() => scheduler.running === 0);
  const live = mx.liveHandles();
  expect(await text(urls[0], urls[0])).not.toBe(one);
  expect(await text(...urls)).toBe(one);
  const cut = new AbortController();
  const stream = await server.post("/v1/chat/completions", { ...body(...urls), stream: true, max_tokens: 500 }, cut);
  await stream.body!.getReader().read();
  cut.abort();
  await until(() => scheduler.running === 0 && mx.liveHandles() <= live);
});

test("tokens of pictures are counted", async () => {
  const [, , body] = forms[2]!;
  const { max_tokens: _, ...counted } = body as Record<string, unknown>;
  const { usage } = await ask("/v1/messages", body);
  expect(await ask("/v1/messages/count_tokens", counted)).toEqual({ input_tokens: usage.input_tokens } as never);
  expect(usage.input_tokens).toBeGreaterThan(tokensOf(answer.asked).length);
});

const user = (url: unknown, more: object = {}) => ({
  messages: [{ role: "user", content: [{ type: "image_url", image_url: { url, ...more } }] }],
});

describe("is refused by name", () => {
  test.each([
    ["a URL", user("http://example.com/a.png"), /nothing is fetched/],
    ["a file's URL", user("file:///etc/passwd"), /nothing is fetched/],
    ["a path", user("/etc/passwd"), /nothing is fetched/],
    ["a URL that is no text", user(5), /nothing is fetched/],
    ["no base64", user("data:image/png;base64,***"), /no base64/],
    ["nothing", user("data:image/png;base64,"), /no base64/],
    ["no picture", user(`data:image/png;base64,${btoa("What is this picture of?")}`), /no image/],
    ["a picture that is cut", user(urls[0].slice(0, urls[0].length / 2)), /damaged|no image/],
    ["another detail", user(urls[0], { detail: "high" }), /detail/],
    ["33 pictures", { messages: [{ role: "user", content: new Array(33).fill(openAi(...urls)[1]) }] }, /32 are taken/],
    ["a picture of the system's", { messages: [{ role: "system", content: openAi(...urls) }] }, /only parts of text/],
    ["an adapter beside it", { ...user(urls[0]), adapters: "x" }, /do not go with pictures/],
    [
      "a place in the words without a picture",
      { messages: [{ role: "user", content: [{ type: "text", text: "<|patch|>" }, ...openAi(...urls)] }] },
      /places for images/,
    ],
  ])("%s", async (_, body, message) => {
    const response = await server.post("/v1/chat/completions", body);
    const { error } = (await response.json()) as Reply;
    expect(error.message).toMatch(message);
    expect([response.status, error.param]).toEqual([400, expect.stringMatching(/^(messages|adapters)/)]);
  });

  test("a picture for a model that sees nothing, in every form", async () => {
    for (const [, path, body] of forms) {
      const response = await blind.post(path, body);
      expect(response.status).toBe(400);
      expect(await response.text()).toContain("takes no pictures");
    }
    const shared = { model: "m", stream: false };
    const message = { role: "user", content: "x", images: [png] };
    for (const [path, body] of [
      ["/api/chat", { ...shared, messages: [message] }],
      ["/api/generate", { ...shared, prompt: "x", images: [png] }],
    ] as const) {
      const response = await blind.post(path, body);
      expect([response.status, await response.text()]).toEqual([400, expect.stringContaining("takes no pictures")]);
    }
  });
});
