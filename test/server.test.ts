/** `mlxlm server` as a process: its flags, its signals, its errors. */
import { afterEach, expect, test } from "bun:test";
import { join } from "node:path";

const main = join(import.meta.dir, "../cmd/main.ts");
const running: Bun.Subprocess[] = [];
afterEach(() => {
  for (const one of running.splice(0)) one.kill("SIGKILL");
});

async function start(...flags: string[]) {
  const child = Bun.spawn([process.execPath, main, "server", "--port", "0", "--json", ...flags], {
    stdout: "pipe",
    stderr: "pipe",
  });
  running.push(child);
  const reader = child.stdout.getReader();
  let text = "";
  while (!text.includes("\n")) {
    const { done, value } = await reader.read();
    if (done) throw new Error(await new Response(child.stderr).text());
    text += new TextDecoder().decode(value);
  }
  const { url, type, model } = JSON.parse(text.split("\n")[0]!) as { url: string; type: string; model: string };
  const post = async (path: string, body: object) => {
    const response = await fetch(url + path, { method: "POST", body: JSON.stringify(body) });
    return (await response.json()) as {
      choices: { text: string; message: { content: string } }[];
      usage: { prompt_tokens: number; completion_tokens: number };
    };
  };
  return { child, url, type, model, post };
}

const sum = { messages: [{ role: "user", content: "What is 27 + 58?" }] };

test("answers, and ends clean on SIGTERM when running answers are done", async () => {
  const { child, url, type, model, post } = await start("demo");
  expect({ type, model }).toEqual({ type: "listening", model: "demo" });
  expect((await post("/v1/chat/completions", sum)).choices[0]!.message.content).toEndWith("85.");
  const body = JSON.stringify({ ...sum, stream: true });
  const response = await fetch(`${url}/v1/chat/completions`, { method: "POST", body });
  child.kill("SIGTERM");
  expect(await response.text()).toEndWith("data: [DONE]\n\n");
  expect(await child.exited).toBe(0);
});

test("the defaults of requests come from flags", async () => {
  const template = "{{ messages[0]['content'] }}{{ end }}";
  const { post } = await start(
    "demo",
    "--max-tokens",
    "3",
    "--chat-template",
    template,
    "--chat-template-args",
    '{"end": " upon a"}',
  );
  const told = await post("/v1/chat/completions", { messages: [{ role: "user", content: "Once" }] });
  expect(told.choices[0]!.message.content).toStartWith("time");
  expect(told.usage.completion_tokens).toBe(3);
  const completed = await post("/v1/completions", { prompt: "Once upon a" });
  expect(completed.choices[0]!.text).toBe(told.choices[0]!.message.content);
  expect(completed.usage.prompt_tokens).toBe(told.usage.prompt_tokens);
});

test.each([[["--temp", "1"]], [["--temp", "1", "--top-k", "5", "--top-p", "0.9", "--min-p", "0.01"]]])(
  "%j draws",
  async (flags) => {
    const { post } = await start("demo", ...flags);
    const story = { messages: [{ role: "user", content: "Tell me a story about a fox." }], max_tokens: 30, seed: 1 };
    const drawn = (await post("/v1/chat/completions", story)).choices[0]!.message.content;
    expect((await post("/v1/chat/completions", { ...story, temperature: 0 })).choices[0]!.message.content).not.toBe(
      drawn,
    );
  },
);

test.each([
  [["./no-such-model"], 3, /no-such-model/],
  [["demo", "--host", "0.0.0.0"], 2, /nothing protects it/],
  [["demo", "--port", "70000"], 2, /port/],
  [["demo", "--draft", "ngram", "--mtp", "2"], 2, /--draft and --mtp exclude each other/],
  [["demo", "--max-memory", "0.001"], 5, /needs 0\.0 GB of memory/],
])("%j ends with %d", async (words, code, message) => {
  const child = Bun.spawn([process.execPath, main, "server", ...words], { stdout: "pipe", stderr: "pipe" });
  running.push(child);
  expect(await child.exited).toBe(code);
  expect(await new Response(child.stderr).text()).toMatch(message);
});

test("a port that is taken is told", async () => {
  const { url } = await start("demo");
  const { port } = new URL(url);
  const child = Bun.spawn([process.execPath, main, "server", "demo", "--port", port], { stderr: "pipe" });
  running.push(child);
  expect(await child.exited).toBe(2);
  expect(await new Response(child.stderr).text()).toMatch(/is taken/);
});
