/** Pictures on two ranks, by a model that sees: what is said about them on one process. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExitCode } from "../../src/errors";
import { openModel } from "../../src/generate/open-model";
import { runCommand } from "../run-command";
import { answer, pictures, saveSeeingModel } from "../seeing-model";
import { type TestServer, testServer } from "../serve";
import { type LaunchedServer, launchServer } from "./launched-server";
import { startRanks } from "./ranks";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-ranks-pictures-"));
afterAll(() => rmSync(folder, { recursive: true }));

const path = saveSeeingModel(join(folder, "seeing"), undefined, {
  chat_template: "{% for m in messages %}{{ m.content }} {% endfor %}",
  // In the place of the type's own, whose answers begin with a header.
  chat_template_type: "",
});
type Server = Pick<LaunchedServer | TestServer, "post">;

const image = (type: string, file: string) => ({
  type: "image_url",
  image_url: { url: `data:image/${type};base64,${file}` },
});
const [before, between, after] = answer.asked.split("<|patch|>") as [string, string, string];
const words = (text: string) => ({ type: "text", text });
const seeing = [
  words(before),
  image("png", pictures.PNG!.file),
  words(between),
  image("jpeg", pictures.JPEG!.file),
  words(after),
];

/** The tokens of an answer. */
async function ask(server: Server, content: object[], more: object = {}): Promise<string[]> {
  const messages = [{ role: "user", content }];
  const body = { messages, max_tokens: 12, temperature: 0, logprobs: true, ...more };
  const response = await server.post("/v1/chat/completions", body);
  if (response.status !== 200) throw new Error(await response.text());
  const { choices } = (await response.json()) as { choices: { logprobs: { content: { token: string }[] } }[] };
  return choices[0]!.logprobs.content.map(({ token }) => token);
}

/** With pictures, without, and with one, side by side. */
const all = (server: Server) =>
  Promise.all([
    ask(server, seeing),
    ask(server, [words(before)]),
    ask(server, seeing.slice(0, 2)),
    ask(server, [words(after)], { max_tokens: 30 }),
  ]);

describe("a server", () => {
  test.each([
    ["beside a batch", [], {}],
    ["with drafts", ["--draft", "ngram"], { ownDrafts: () => ({ from: "ngram" as const, tokens: 3 }) }],
  ])("answers about pictures %s", async (_, way, settings) => {
    const single = testServer({ open: () => openModel(path), settings });
    const expected = await all(single);
    await single.stop();
    expect(new Set(expected.map(String)).size).toBe(4);

    const server = await launchServer(["-n", "2"], ["--model", path, ...way]);
    expect(await all(server)).toEqual(expected);
    // Whoever goes away in the midst of an answer leaves the others alone.
    const leaving = new AbortController();
    const messages = [{ role: "user", content: seeing }];
    const endless = { messages, max_tokens: 100, stream: true, logit_bias: { 255: -100 } };
    const stream = await server.post("/v1/chat/completions", endless, { signal: leaving.signal });
    await stream.body!.getReader().read();
    leaving.abort();
    expect(await all(server)).toEqual(expected);
    expect(await server.stop()).toBe(0);
  });
});

describe("a command", () => {
  const files = ["first.png", "second.jpg"];
  // The other rank has none of the files.
  for (const rank of [0, 1]) mkdirSync(join(folder, `rank${rank}`));
  for (const [i, kind] of ["PNG", "JPEG"].entries()) {
    writeFileSync(join(folder, "rank0", files[i]!), Buffer.from(pictures[kind]!.file, "base64"));
  }

  const run = async (words: readonly string[]) => {
    const ends = await Promise.all(
      startRanks("command-rank.ts", 2, { args: [folder, ...words] }).map(({ ended }) => ended),
    );
    return ends.map(({ code, stdout, stderr }) => ({ code, said: stdout.trim() || stderr }));
  };
  const generate = (...words: string[]) =>
    run(["generate", "--model", path, "--ignore-chat-template", "--verbose", "false", "-m", "12", ...words]);

  test("generate: mlx-lm's tokens", async () => {
    const tokens = answer.tokens.map((id) => `w${id}`).join(" ");
    const asked = ["--prompt", answer.asked, "--image", ...files];
    const nothing = { code: 0, said: "" };
    expect(await generate(...asked)).toEqual([{ code: 0, said: tokens }, nothing]);
  });

  test("chat answers on ranks what it answers on one process", async () => {
    const talk = ["chat", "--model", path, "--temp", "0", "--max-tokens", "12", "--json", "--image", ...files];
    const texts = (said: string) =>
      said
        .trim()
        .split("\n")
        .flatMap((line) => {
          const event = JSON.parse(line) as { type?: string; text?: string };
          return event.type === "answer" ? [event.text] : [];
        });
    const stdin = `${answer.asked}\nw5 w6\n`;
    const alone = await runCommand(talk, { stdin, cwd: join(folder, "rank0") });
    const ranks = startRanks("command-rank.ts", 2, { args: [folder, ...talk], stdin });
    const [lead] = await Promise.all(ranks.map(({ ended }) => ended));
    const expected = texts(alone.out);
    expect(expected).toHaveLength(2);
    expect(texts(lead!.stdout)).toEqual(expected);
  });

  test("what cannot be read fails on all", async () => {
    const missing = await generate("--prompt", "w1", "--image", "none.png");
    expect(missing.map(({ code }) => code)).toEqual([ExitCode.notFound, ExitCode.notFound]);
    expect(missing[0]!.said).toContain("there is no image");
    const places = await generate("--prompt", "w1 <|patch|> w2", "--image", ...files);
    for (const { code, said } of places) {
      expect(code).toBe(ExitCode.usage);
      expect(said).toContain("the prompt has 1 places for images");
    }
  });
});
