/** `mlxlm server` on two ranks: the first one answers over HTTP, the other makes the same steps. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { testServer } from "../serve";
import { type LaunchedServer, launchServer } from "./launched-server";

interface Likelihoods {
  content: { token: string; logprob: number }[];
}

interface Counted {
  choices: { message: { content: string } }[];
  usage: { prompt_tokens_details?: { cached_tokens?: number } };
}

/** The demo model. */
const start = (ranks: readonly string[], way: readonly string[]) => launchServer(ranks, ["--model", "demo", ...way]);

describe.each([
  ["a part of each layer on each rank", []],
  ["some layers on each rank", ["--pipeline"]],
  [
    "packed caches: one answer after the other",
    ["--kv-bits", "8", "--kv-group-size", "32", "--quantized-kv-start", "0"],
  ],
  ["a draft model", ["--draft-model", "demo"]],
])("%s", (_, way) => {
  const isBatched = way.length < 2;
  let server: LaunchedServer;
  let url = "";

  beforeAll(async () => {
    server = await start(["-n", "2"], way);
    url = server.url;
  }, 60_000);

  afterAll(() => server.process.kill("SIGKILL"));

  const requestOf = (content: string, more: object = {}) => ({
    messages: [{ role: "user", content }],
    temperature: 0,
    ...more,
  });

  const ask = (content: string, more?: object, signal?: AbortSignal) =>
    fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(requestOf(content, more)),
      signal,
    });

  const textOf = async (response: Response) => {
    const { choices } = (await response.json()) as { choices: { message: { content: string } }[] };
    return choices[0]!.message.content;
  };

  test("it answers as one process does, several at a time, cut short and left alone", async () => {
    expect(await textOf(await ask("What is 27 + 58?"))).toEndWith("27 + 58 = 85.");
    const [cut, drawn, whole] = await Promise.all([
      ask("What is 30 + 41?", { stop: ["="] }).then(textOf),
      ask("What is 3 + 4?", { temperature: 0.5, seed: 1 }).then(textOf),
      ask("What is 11 + 12?").then(textOf),
    ]);
    expect(cut).not.toContain("=");
    expect(drawn).not.toBe("");
    expect(whole).toEndWith("11 + 12 = 23.");
    const leaving = new AbortController();
    const stream = await ask("Tell me a story.", { max_tokens: 100_000, stream: true }, leaving.signal);
    await stream.body!.getReader().read();
    leaving.abort();
    expect(await textOf(await ask("What is 1 + 2?"))).toEndWith("1 + 2 = 3.");
  }, 60_000);

  test.if(isBatched)(
    "it answers side by side, each as alone: some begin and end while others go on",
    async () => {
      const questions = ["What is 27 + 58?", "What is 30 + 41?", "What is 11 + 12?", "What is 3 + 4?"];
      const more = [{}, { repetition_penalty: 1.1 }, { stop: ["="] }, { max_tokens: 5 }];
      const asked = (from: typeof ask) => questions.map((question, i) => from(question, more[i]).then(textOf));
      const single = testServer();
      const alone = await Promise.all(
        asked((content, more) => single.post("/v1/chat/completions", requestOf(content, more))),
      );
      await single.stop();

      // It ends nowhere by itself.
      const endless = { logit_bias: { 0: -100, 2: -100 }, max_tokens: 600, stream: true };
      let isOver = false;
      const long = await ask("Tell me a story.", endless);
      const reader = long.body!.getReader();
      await reader.read();
      const rest = (async () => {
        while (!(await reader.read()).done);
        isOver = true;
      })();
      const left = new AbortController();
      const leaving = await ask("Tell me a story.", endless, left.signal);
      await leaving.body!.getReader().read();
      const first = Promise.all(asked(ask));
      left.abort();
      expect(await first).toEqual(alone);
      expect(await Promise.all(asked(ask))).toEqual(alone);
      expect(isOver).toBe(false);
      await rest;
      expect(await textOf(await ask("What is 1 + 2?"))).toEndWith("1 + 2 = 3.");
    },
    60_000,
  );

  const person = {
    type: "object",
    properties: { name: { enum: ["Ann", "Bob"] }, age: { type: "integer", minimum: 1, maximum: 99 } },
    required: ["name", "age"],
    additionalProperties: false,
  };
  const inForm = { response_format: { type: "json_schema", json_schema: { name: "person", schema: person } } };

  test("forms, likelihoods, biases, seeds and texts as vectors are those of one process", async () => {
    const post = (path: string, body: object) =>
      fetch(`${url}/v1/${path}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
    const single = testServer();
    const alone = (path: string, body: object) => single.post(`/v1/${path}`, body);
    const answers = async (from: typeof post) => {
      const wishes = [
        inForm,
        { ...inForm, temperature: 0.9, seed: 3 },
        { ...inForm, repetition_penalty: 1.2 },
        { logprobs: true, top_logprobs: 1, max_tokens: 5 },
        { logit_bias: { 5: -3 }, presence_penalty: 0.5, max_tokens: 20 },
      ];
      const told = [];
      // One after the other: how text is cut into tokens that a grammar forces depends on who is answered beside it.
      for (const more of wishes) {
        const response = await from("chat/completions", requestOf("Who are you?", more));
        const { choices } = (await response.json()) as { choices: { message: object; logprobs?: Likelihoods }[] };
        const { message, logprobs } = choices[0]!;
        told.push({ message, tokens: logprobs?.content.map(({ token, logprob }) => [token, logprob.toFixed(2)]) });
      }
      const embedded = await from("embeddings", { input: ["a small fox", "27 + 58"] });
      const { data } = (await embedded.json()) as { data: { embedding: number[] }[] };
      return [told, data.map(({ embedding }) => embedding.map((x) => x.toFixed(4)))] as const;
    };
    const [whole, parts] = [await answers(alone), await answers(post)];
    await single.stop();
    if (isBatched) expect(parts).toEqual(whole);
    for (const { message } of parts[0].slice(0, 2)) {
      const { content } = message as { content: string };
      expect(JSON.parse(content)).toMatchObject({ name: expect.stringMatching(/Ann|Bob/), age: expect.any(Number) });
    }
    expect(parts[1]).toEqual(whole[1]);
    const side = await Promise.all(
      [inForm, {}, { ...inForm, temperature: 1 }].map((more) => ask("Who?", more).then(textOf)),
    );
    for (const i of [0, 2]) expect(JSON.parse(side[i]!)).toMatchObject({ age: expect.any(Number) });
  }, 60_000);

  test("a prompt that begins as an earlier one is read from there on", async () => {
    const story = "There was a small fox who lived in a wood and counted the trees. ".repeat(8);
    const cachedOf = async (content: string, more?: object) => {
      const { usage, choices } = (await (await ask(content, { max_tokens: 8, ...more })).json()) as Counted;
      return [usage.prompt_tokens_details?.cached_tokens ?? 0, choices[0]!.message.content] as const;
    };
    const [none, first] = await cachedOf(`${story}How many?`);
    const [all, again] = await cachedOf(`${story}How many?`);
    const [most] = await cachedOf(`${story}Where was it?`, inForm);
    expect(again).toBe(first);
    expect(none).toBeLessThan(20);
    expect(all).toBeGreaterThan(80);
    expect(most).toBeGreaterThan(80);
    // Others come and go, and what is not used for a while is forgotten.
    await Promise.all(Array.from({ length: 14 }, (_, i) => cachedOf(`${i} ${story.slice(i)}`)));
    expect(await cachedOf(`${story}How many?`)).toEqual([expect.any(Number), first]);
  }, 60_000);

  test("pictures for a model that sees nothing are refused, and it goes on", async () => {
    const picture = { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } };
    const messages = [{ role: "user", content: [{ type: "text", text: "What is this?" }, picture] }];
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify({ messages });
    const response = await fetch(`${url}/v1/chat/completions`, { method: "POST", headers, body });
    expect(response.status).toBe(400);
    expect(await response.text()).toContain("this model takes no pictures");
    expect(await textOf(await ask("What is 1 + 2?"))).toEndWith("1 + 2 = 3.");
  });

  test("Ctrl-C ends both", async () => {
    server.process.kill("SIGINT");
    expect(await server.process.exited).toBe(0);
  });
});

test("prompts are kept over a restart, with another number of ranks and another split", async () => {
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-ranks-prompts-"));
  const story = "There was a small fox who lived in a wood and counted the trees. ".repeat(8);
  const cachedOf = async (ranks: readonly string[], way: readonly string[]) => {
    const { process, url } = await start(ranks, [...way, "--prompt-cache-dir", folder]);
    const response = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: story, temperature: 0, max_tokens: 8 }),
    });
    const { usage, choices } = (await response.json()) as Counted & { choices: { text: string }[] };
    process.kill("SIGINT");
    expect(await process.exited).toBe(0);
    return [usage.prompt_tokens_details?.cached_tokens ?? 0, choices[0]!.text] as const;
  };
  const [none, first] = await cachedOf(["-n", "2"], []);
  const [all, again] = await cachedOf(["-n", "3"], ["--pipeline"]);
  rmSync(folder, { recursive: true });
  expect([none, again]).toEqual([0, first]);
  expect(all).toBeGreaterThan(80);
}, 60_000);
