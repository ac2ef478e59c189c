/** `mlxlm server` on two ranks: the first one answers over HTTP, the other makes the same steps. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { testServer } from "../serve";

const main = join(import.meta.dir, "../../cmd/main.ts");
describe.each([
  ["a part of each layer on each rank", []],
  ["some layers on each rank", ["--pipeline"]],
])("%s", (_, way) => {
  const words = ["launch", "-n", "2", "server", "--model", "demo", "--port", "0", "--json", ...way];
  const server = Bun.spawn([process.execPath, main, ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, MLXLM_THREADS: "1" },
  });
  const problems = server.stderr.text();
  let url = "";

  beforeAll(async () => {
    let said = "";
    for await (const chunk of server.stdout) {
      said += new TextDecoder().decode(chunk);
      url = /"url":"([^"]+)"/.exec(said)?.[1] ?? "";
      if (url !== "") return;
    }
    throw new Error(await problems);
  }, 60_000);

  afterAll(() => server.kill("SIGKILL"));

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

  test("it answers side by side, each as alone: some begin and end while others go on", async () => {
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
  }, 60_000);

  test.each([
    [
      "chat/completions",
      { messages: [{ role: "user", content: "x" }], response_format: { type: "json_object" } },
      "in a form",
    ],
    ["embeddings", { input: "x" }, "no embeddings"],
  ])("%s refuses what one process can do only", async (path, body, message) => {
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${url}/v1/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
    expect(response.status).toBe(400);
    expect(await response.text()).toContain(message);
    expect(await textOf(await ask("What is 1 + 2?"))).toEndWith("1 + 2 = 3.");
  });

  test("Ctrl-C ends both", async () => {
    server.kill("SIGINT");
    expect(await server.exited).toBe(0);
  });
});
