/** `mlxlm chat` through pipes. */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { demoFolder } from "../src/demo/folder";
import { type Conversation, chat, conversations, main, runChat } from "./chat-program";
import { copyWithoutEnd } from "./endless-model";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-chat-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const [sum, , story] = conversations[0]!.turns as [Turn, Turn, Turn];
type Turn = Conversation["turns"][number];

const piped = (stdin: string, ...words: string[]) => runChat(scratch, stdin, ...words);
const answersOf = ({ turns }: Conversation) => turns.map(({ answer }) => `${answer}\n`).join("");

describe("through pipes", () => {
  test.each(conversations)(
    "answers are Python's: a shared beginning of the cache changes nothing (%#)",
    async (one) => {
      const questions = one.turns.map(({ question }) => (question.includes("\n") ? `"""${question}"""` : question));
      const system = one.system === null ? [] : ["--system-prompt", one.system];
      const { code, out, problems } = await piped(`${questions.join("\n")}\n`, ...system);
      expect(out).toBe(answersOf(one));
      expect(problems).toMatch(/^( {2}\d+ tokens · [\d.]+ tok\/s · prompt [\d.]+ tok\/s · peak \d+\.\d\d GB\n)+$/);
      expect(problems.split("\n").length - 1).toBe(questions.length);
      expect(code).toBe(0);
    },
  );

  test("--json gives one object a turn, and later turns feed only what is new", async () => {
    const questions = conversations[0]!.turns.map(({ question }) => question);
    const { out, problems } = await piped(`/show\n${questions.join("\n")}\nq\n`, "--json");
    const events = out
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(events.map(({ type, text }) => ({ type, text }))).toEqual(
      conversations[0]!.turns.map(({ answer }) => ({ type: "answer", text: answer })),
    );
    for (const event of events)
      expect(event).toMatchObject({ finish_reason: "stop", generation_tps: expect.any(Number) });
    expect(events[0].cached_tokens).toBe(0);
    // Only the end of the answer's line, the question and the header are new.
    for (const event of events.slice(1)) {
      expect(event.cached_tokens).toBeGreaterThan(0);
      expect(event.prompt_tokens).toBeLessThan(25);
    }
    expect(problems).toBe("");
  });

  test("blank lines, CRLF, and an end without a line break", async () => {
    const { code, out } = await piped(`\n  \r\n${sum.question}\r\n\n${conversations[0]!.turns[1]!.question}`);
    expect(out).toBe(
      conversations[0]!.turns
        .slice(0, 2)
        .map(({ answer }) => `${answer}\n`)
        .join(""),
    );
    expect(code).toBe(0);
    const open = await piped(`"""${sum.question}`);
    expect(open.out).toBe(`${sum.answer}\n`);
    expect(await piped("")).toEqual({ code: 0, out: "", problems: "" });
  });

  test("q, r and h are the reference's", async () => {
    const { out, problems } = await piped(`${sum.question}\nr\n${sum.question}\nh\nq\n${sum.question}\n`);
    expect(out).toBe(`${sum.answer}\n`.repeat(2));
    expect(problems).toMatch(/reset context cleared/);
    expect(problems).toMatch(/commands {4}q exit {3}r reset {3}h help/);
    expect(problems).toEndWith("bye\n");
  });

  test("/save, /clear, /load: the conversation goes on as if nothing had been", async () => {
    const file = join(scratch, "saved.json");
    const [first, second, third] = conversations[0]!.turns as [Turn, Turn, Turn];
    const { out, problems } = await piped(
      [
        first.question,
        second.question,
        `/save ${file}`,
        "/clear",
        first.question,
        `/load ${file}`,
        third.question,
      ].join("\n"),
    );
    expect(out).toBe([first, second, first, third].map(({ answer }) => `${answer}\n`).join(""));
    expect(problems).toContain(`4 messages in ${file}`);
    expect(problems).toContain("4 messages loaded.");
    expect(JSON.parse(readFileSync(file, "utf8")).messages).toEqual([
      { role: "user", content: first.question },
      { role: "assistant", content: first.answer },
      { role: "user", content: second.question },
      { role: "assistant", content: second.answer },
    ]);
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  test("/system stands for the flag", async () => {
    const [, withSystem] = conversations as [Conversation, Conversation];
    const { question, answer } = withSystem.turns[0]!;
    const { out, problems } = await piped(
      `/system """\n${withSystem.system}\n"""\n/system\n${question}\n/system ""\n/clear\n${sum.question}\n/system\n`,
    );
    expect(out).toBe(`${answer}\n${sum.answer}\n`);
    expect(problems).toContain(`  ${withSystem.system}\n`);
    expect(problems).toContain("There is no system message.");
  });

  test("/set changes what the flags set: the same seed, the same sampled answer as generate's", async () => {
    const sampled = ["--temp", "1", "--top-p", "0.9", "--seed", "5", "-m", "20"];
    const words = [process.execPath, main, "generate", "--model", "demo", "--prompt", story.question, ...sampled];
    const generated = Bun.spawnSync(words, { stderr: "ignore" }).stdout.toString();
    expect((await piped(story.question, ...sampled)).out).toBe(generated);
    const set = await piped(`/set temp 1\n/set top_p 0.9\n/set max-tokens 20\n/set seed 5\n${story.question}\n/show\n`);
    expect(set.out.length).toBeGreaterThan(20);
    expect(set.out).not.toBe(`${story.answer}\n`);
    expect(set.problems).toMatch(/20 tokens · .* · cut off: \/set max-tokens N allows more/);
    expect(set.problems).toMatch(/top-p +0\.9\n/);
    expect(set.problems).toMatch(/context +\d+ of 1024 tokens\n/);
  });

  test("what goes wrong with one line is told, and is the exit code; the chat goes on", async () => {
    const bad = join(scratch, "bad.json");
    writeFileSync(bad, '{"format": "mlxlm chat", "version": 1, "model": "m", "messages": [{"role": "user"}]}');
    const kept = join(scratch, "kept.txt");
    writeFileSync(kept, "mine");
    const lines = [`/load ${bad}`, `/load ${scratch}/nowhere`, `/save ${kept}`, "/lod x", "/set tmp 1", "/set temp -1"];
    lines.push("/set max-tokens 0", "/set thinking on", "/save", "/load");
    const { code, out, problems } = await piped(`${lines.join("\n")}\n${sum.question}\n`);
    expect(out).toBe(`${sum.answer}\n`);
    for (const message of [
      /bad\.json is no saved conversation: "messages\.0\.content"/,
      /there is no file .*nowhere/,
      /kept\.txt is there already/,
      /there is no command \/lod\n.*Did you mean \/load\?/,
      /there is no setting "tmp"\n.*Did you mean temp\?/,
      /\/set temp must be at least 0/,
      /max-tokens must be 1 or more/,
      /this model does not think aloud/,
      /\/save needs a file/,
      /\/load needs a file/,
    ]) {
      expect(problems).toMatch(message);
    }
    expect(readFileSync(kept, "utf8")).toBe("mine");
    expect(code).not.toBe(0);
    expect(problems).not.toContain("    at ");
  });

  test("/undo, /retry, /model, and settings that are no flags of mlx-lm's", async () => {
    const [first, second] = conversations[0]!.turns as [Turn, Turn, Turn];
    const lines = [first.question, "hello", "/undo", second.question, "/retry", "/model demo", "/model", "/retry"];
    const { code, out, problems } = await piped(`${lines.join("\n")}\n/set top-k 1\n/set min-p 0.5\n/undo\n/show\n`);
    const answers = out.trimEnd().split("\n");
    expect(answers.filter((line) => line === second.answer).length).toBe(3);
    expect(problems).toContain("The last message and its answer are taken back.");
    expect(problems).toContain("The model is demo.");
    expect(problems).toMatch(/top-k +1\n/);
    expect(problems).toMatch(/messages +2\n/);
    expect(code).toBe(0);
    const wrong = await piped("/undo\n/retry\n/model ./nowhere\n/set temp abc\n");
    expect(wrong.problems).toMatch(/nothing has been said yet/);
    expect(wrong.problems).toMatch(/there is no folder \.\/nowhere/);
    expect(wrong.problems).toMatch(/\/set temp must be a number, not "abc"/);
  });

  test("top-k 1 leaves the likeliest token at any temperature", async () => {
    expect((await piped(`${sum.question}\n`, "--temp", "2", "--top-k", "1")).out).toBe(`${sum.answer}\n`);
  });

  test("a path is no command", async () => {
    const { code, problems } = await piped("/etc/hosts: what is it for?\n", "-m", "4");
    expect(problems).toMatch(/^ {2}4 tokens/);
    expect(code).toBe(0);
  });

  test("a very long line is refused before any work, and the next one answered", async () => {
    const { code, out, problems } = await piped(`${"word ".repeat(400_000)}\n${sum.question}\n`);
    expect(out).toBe(`${sum.answer}\n`);
    expect(problems).toMatch(
      /with this message the conversation has \d{6,} tokens, and the model takes 1024\n.*\/clear/,
    );
    expect(code).toBe(2);
  }, 60_000);

  test("a context that gets full is announced", async () => {
    const long = `Tell me ${"a story about a fox and ".repeat(130)}a pond.`;
    const asked = [story.question, long, long].join("\n");
    const { code, out, problems } = await piped(asked, "-m", "200");
    expect(problems).toMatch(/the conversation fills 9\d % of the model's context \(9\d\d of 1024 tokens\)/);
    expect(problems).toMatch(/the model takes 1024/);
    expect(out).toStartWith((await piped(story.question)).out);
    expect(code).toBe(2);
    const rolling = await piped(asked, "-m", "200", "--max-kv-size", "256");
    expect(rolling.problems).not.toContain("context");
    expect(rolling.code).toBe(0);
  }, 60_000);

  test("a reader that goes away ends it quietly", () => {
    const command = `yes "${story.question}" | ${chat()
      .map((word) => `"${word}"`)
      .join(" ")} 2>"${scratch}/problems" | head -c 1`;
    expect(Bun.spawnSync(["bash", "-c", command]).stdout.toString()).toMatch(/^[A-Z]$/);
    expect(readFileSync(join(scratch, "problems"), "utf8")).toBe("");
  });

  test.each(["SIGINT", "SIGTERM"] as const)("%s ends it within a step, with exit code 130", async (signal) => {
    const model = copyWithoutEnd(demoFolder(), mkdtempSync(join(scratch, "endless-")));
    const child = Bun.spawn(chat("--model", model, "-m", "-1"), { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
    child.stdin.write(`${story.question}\n`);
    child.stdin.flush();
    await child.stdout.getReader().read();
    child.kill(signal);
    expect(await child.exited).toBe(130);
    expect(await child.stderr.text()).toMatch(/^ {2}\d+ tokens? /);
    // Also while it waits for a line.
    const waiting = Bun.spawn(chat(), { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
    waiting.stdin.write(`${sum.question}\n`);
    waiting.stdin.flush();
    await waiting.stderr.getReader().read();
    waiting.kill(signal);
    expect(await waiting.exited).toBe(130);
  });

  test.each([
    [["--max-tokens", "0"], /max-tokens must be 1 or more/],
    [["--pipeline"], /--pipeline spreads layers over ranks/],
    [["--tmep", "1"], /Did you mean --temp\?/],
  ])("%p is refused", async (words, message) => {
    const { code, out, problems } = await piped("hello\n", ...words);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(problems).toMatch(message);
  });

  test("a model without a chat template is refused", async () => {
    const folder = join(scratch, "plain");
    cpSync(join(import.meta.dir, "../src/demo/model"), folder, { recursive: true });
    rmSync(join(folder, "chat_template.jinja"));
    const { code, problems } = await piped("hello\n", "--model", folder);
    expect(problems).toMatch(/has no chat template\n.*mlxlm generate/);
    expect(code).toBe(2);
  });
});
