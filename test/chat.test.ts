/** `mlxlm chat` as a user meets it: through pipes, and at a terminal. */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "./parity/fixtures";
import { TerminalProgram } from "./terminal";

const main = join(import.meta.dir, "../cmd/main.ts");
const scratch = mkdtempSync(join(tmpdir(), "mlxlm-chat-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const chat = (...words: string[]) => [process.execPath, main, "chat", "--model", "demo", ...words];

interface Conversation {
  system: string | null;
  turns: { question: string; answer: string }[];
}

/** What Python mlx-lm answers, each time from the whole conversation and an empty cache. */
const conversations = fixture<Conversation[]>("chat.json");
const [sum, , story] = conversations[0]!.turns as [Turn, Turn, Turn];
type Turn = Conversation["turns"][number];

interface Run {
  code: number;
  out: string;
  problems: string;
}

/** Runs a chat with lines from a pipe. */
async function piped(stdin: string, ...words: string[]): Promise<Run> {
  const child = Bun.spawn(chat(...words), {
    stdin: new Blob([stdin]),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, HF_HUB_OFFLINE: "1", XDG_STATE_HOME: scratch },
  });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, problems };
}

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
    const child = Bun.spawn(chat("-m", "-1", "--temp", "1"), { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
    child.stdin.write(`${story.question}\n`);
    child.stdin.flush();
    await child.stdout.getReader().read();
    child.kill(signal);
    expect(await child.exited).toBe(130);
    expect(await child.stderr.text()).toMatch(/^ {2}\d+ tokens/);
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
    [["--pipeline"], /--pipeline is not available yet/],
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

describe("at a terminal", () => {
  const prompt = "› ";
  let homes = 0;

  async function open(words: string[] = [], env: Record<string, string> = {}): Promise<TerminalProgram> {
    const program = new TerminalProgram(chat(...words), {
      env: { XDG_STATE_HOME: join(scratch, `state-${homes++}`), NO_COLOR: "1", ...env },
    });
    await program.until(prompt);
    return program;
  }

  test("panel, prompt, answer, figures; Ctrl-D ends it", async () => {
    const program = await open(["--system-prompt", "Be a fox.", "-m", "1000"]);
    const panel = Bun.stripANSI(program.screen);
    for (const row of [
      "╭─ mlxlm chat ─",
      "model        demo",
      "max tokens   1,000",
      "system       Be a fox.",
      "h help",
    ]) {
      expect(panel).toContain(row);
    }
    program.type('/system ""\r');
    await program.until(prompt);
    program.type(`${sum.question}\r`);
    const turn = await program.until(prompt);
    expect(turn).toContain(`${sum.question}\n${sum.answer}\n  42 tokens · `);
    program.type("\x04");
    expect(await program.ended()).toBe(0);
    // Pasted text is marked only while a message is typed.
    expect(program.screen).toEndWith("\x1b[?2004l\r\n");
  });

  test("lines can be edited, wide ones too, and the arrow brings earlier ones back, also in the next chat", async () => {
    const env = { XDG_STATE_HOME: join(scratch, "shared") };
    const program = await open([], env);
    program.type("/system 日本語");
    program.type("\x7f\x1b[D\x1b[D\x01\x05!");
    program.type("\r");
    await program.until("The system message is set.");
    await program.until(prompt);
    program.type("/system\r");
    await program.until("  日本!");
    await program.until(prompt);
    program.type("\x1b[A");
    program.type("\x1b[A");
    program.type("\x7f?\r");
    await program.until("is set.");
    program.type("/bye\r");
    await program.until("bye");
    expect(await program.ended()).toBe(0);

    const file = join(env.XDG_STATE_HOME, "mlxlm/chat_history");
    expect(readFileSync(file, "utf8")).toBe("/system 日本!\n/system\n/system 日本?\n/bye\n");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const next = await open([], env);
    next.type("\x1b[A");
    next.type("\x1b[A");
    await next.until("/system 日本?");
    next.type("\r");
    await next.until("is set.");
    await next.until(prompt);
    next.type("\x04");
    expect(await next.ended()).toBe(0);
  });

  test("several lines, typed and pasted, and Tab", async () => {
    const program = await open();
    const file = join(scratch, "lines.json");
    program.type('"""\r');
    await program.until("… ");
    program.type("What is\r");
    await program.until("… ");
    program.type('27 + 58?"""\r');
    await program.until(prompt);
    program.type("\x1b[200~def f():\r\n\treturn 1\r\n\x1b[201~");
    await program.until("return 1");
    await program.until("… ");
    program.type("f()?\r");
    await program.until("tok/s");
    await program.until(prompt);
    program.type("/sa");
    program.type("\t");
    await program.until("/save");
    program.type(` ${file}\r`);
    await program.until("4 messages in");
    await program.until(prompt);
    program.type("\x04");
    expect(await program.ended()).toBe(0);
    const { messages } = JSON.parse(readFileSync(file, "utf8"));
    expect([messages[0].content, messages[2].content]).toEqual(["What is\n27 + 58?", "def f():\n\treturn 1\nf()?"]);
  });

  test("max tokens -1 is no limit", async () => {
    const program = await open(["-m", "-1"]);
    expect(Bun.stripANSI(program.screen)).toMatch(/max tokens {3}no limit +│/);
    program.type("exit\r");
    await program.until("bye");
    expect(await program.ended()).toBe(0);
  });

  test("Tab completes files and cached models", async () => {
    const file = join(scratch, "tabbed.json");
    const hub = join(scratch, "tabbed-hub");
    mkdirSync(join(hub, "models--me--owl", "snapshots"), { recursive: true });
    const program = await open([], { HF_HUB_CACHE: hub });
    program.type(`/save ${file}\r`);
    await program.until("0 messages in");
    await program.until(prompt);
    program.type(`/load ${file.slice(0, -"ed.json".length)}`);
    program.type("ed.\t");
    await program.until("tabbed.json");
    program.type("\r");
    await program.until("0 messages loaded.");
    await program.until(prompt);
    program.type("/model me");
    program.type("\t");
    await program.until("me/owl");
    program.type("\x03");
    await program.until(prompt);
    program.type("\x04");
    expect(await program.ended()).toBe(0);
  });

  test("a very long paste", async () => {
    const program = await open();
    const long = "wörter ".repeat(20_000);
    program.type(`\x1b[200~${long}\x1b[201~`);
    program.type("\r");
    await program.until("the model takes 1024");
    await program.until(prompt);
    program.type("\x04");
    expect(await program.ended()).toBe(0);
  }, 60_000);

  test("Ctrl-C stops an answer, which stays as it was printed; typing ahead is kept", async () => {
    const { out: whole } = await piped(story.question);
    const program = await open();
    const file = join(scratch, "stopped.json");
    program.type(`${story.question}\r`);
    const begin = whole.slice(0, 7);
    await program.until(begin);
    program.type("\x03");
    const rest = await program.until("tokens ·");
    await program.until(prompt);
    program.type(`${sum.question}\r`);
    await program.until("27 + 58 = 85");
    program.type(`/save ${file}\r`);
    await program.until("4 messages in");
    program.type("/exit\r");
    expect(await program.ended()).toBe(0);
    const stopped = JSON.parse(readFileSync(file, "utf8")).messages[1].content as string;
    expect(whole).toStartWith(stopped);
    expect(stopped.length).toBeLessThan(whole.length - 1);
    // Lines end between words on a terminal.
    expect(`${begin}${rest}`.replace("^C", "").replaceAll("\n", " ")).toStartWith(`${stopped} `);
  });

  test("keys during an answer show nowhere, and are the next line", async () => {
    const program = await open(["--temp", "0"]);
    program.type(`${story.question}\r`);
    await program.until((await piped(story.question)).out.slice(0, 7));
    const ahead = sum.question.slice(0, -1);
    program.type(`\x1b[D${ahead}\x1b[D\x1b[C`);
    const rest = await program.until("tok/s");
    expect(rest).not.toContain("^[");
    expect(rest).not.toContain("27 +");
    await program.until(ahead);
    program.type(`${sum.question.at(-1)}\r`);
    await program.until("= 85");
    await program.until(prompt);
    program.type("\x04");
    expect(await program.ended()).toBe(0);
  });

  test("a message of several lines is one entry of the history, pasted or fenced", async () => {
    const env = { XDG_STATE_HOME: join(scratch, "entries") };
    const program = await open(["-m", "4"], env);
    program.type("\x1b[200~one\ntwo\x1b[201~");
    await program.until("two");
    program.type("\r");
    await program.until("tok/s");
    await program.until(prompt);
    program.type('"""\r');
    await program.until("… ");
    program.type('three\rfour"""\r');
    await program.until("tok/s");
    await program.until(prompt);
    program.type("\x04");
    expect(await program.ended()).toBe(0);
    const file = join(env.XDG_STATE_HOME, "mlxlm/chat_history");
    expect(readFileSync(file, "utf8")).toBe("one\u2028two\nthree\u2028four\n");

    const next = await open(["-m", "4"], env);
    const saved = join(scratch, "entries.json");
    next.type("\x1b[A\r");
    await next.until("tok/s");
    await next.until(prompt);
    next.type(`/save ${saved}\r`);
    await next.until("2 messages in");
    next.type("\x04");
    await next.ended();
    expect(JSON.parse(readFileSync(saved, "utf8")).messages[0].content).toBe("three\nfour");
  });

  test("/save asks before it replaces a file that this chat did not write", async () => {
    const file = join(scratch, "asked.json");
    expect((await piped(`${sum.question}\n/save ${file}\n`)).problems).toContain("2 messages in");
    const before = readFileSync(file, "utf8");
    const program = await open();
    program.type(`/save ${file}\r`);
    await program.until("is there already. Replace it? (y/n)");
    program.type("n\r");
    await program.until("Nothing is saved.");
    expect(readFileSync(file, "utf8")).toBe(before);
    await program.until(prompt);
    program.type(`/save ${file}\r`);
    await program.until("(y/n)");
    program.type("y\r");
    await program.until("0 messages in");
    await program.until(prompt);
    program.type(`/save ${file}\r`);
    expect(await program.until("0 messages in")).not.toContain("(y/n)");
    program.type("/bye\r");
    expect(await program.ended()).toBe(0);
  });

  test.each([40, 80])("in %i columns no line of help or answer is broken inside a word", async (columns) => {
    const program = new TerminalProgram(chat(), {
      env: { XDG_STATE_HOME: join(scratch, `wide-${columns}`), NO_COLOR: "1" },
      columns,
    });
    await program.until(prompt);
    program.type("/help\r");
    const help = await program.until("pasted.");
    await program.until(prompt);
    program.type(`${story.question}\r`);
    const answer = await program.until("tok/s");
    program.type("\x04");
    await program.ended();
    for (const line of `${help}\n${answer}`.split("\n")) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(columns);
    expect(answer.replaceAll(/\s+/g, " ")).toContain((await piped(story.question)).out.trim());
  });

  test("Ctrl-C at the prompt drops what is typed; at an empty one the second ends the chat", async () => {
    const program = await open();
    program.type("something");
    await program.until("something");
    program.type("\x03");
    await program.until(prompt);
    program.type('"""half\r');
    await program.until("… ");
    program.type("\x03");
    await program.until(prompt);
    program.type("\x03");
    await program.until("Another Ctrl-C ends the chat, and so do Ctrl-D and /exit.");
    await program.until(prompt);
    // A line in between starts the count anew.
    program.type("/system\r");
    await program.until("There is no system message.");
    await program.until(prompt);
    program.type("\x03");
    await program.until("Another Ctrl-C");
    await program.until(prompt);
    program.type("\x03");
    expect(await program.ended()).toBe(130);
  });

  test("SIGTERM ends it, and so does a terminal that goes away", async () => {
    const killed = await open();
    killed.kill("SIGTERM");
    expect(await killed.ended()).toBe(130);
    const left = await open();
    left.hangUp();
    expect(await left.ended()).not.toBe(0);
  });

  test("colours only where they are wanted, and no escape code on a dumb terminal", async () => {
    const dim = "\x1b[2m";
    const colourful = await open([], { NO_COLOR: "" });
    expect(colourful.screen).toContain(dim);
    colourful.type("\x04");
    await colourful.ended();
    const plain = await open();
    expect(plain.screen).not.toContain(dim);
    plain.type("\x04");
    await plain.ended();
    const dumb = await open([], { TERM: "dumb" });
    dumb.type(`${sum.question}\r`);
    await dumb.until(sum.answer);
    await dumb.until(prompt);
    dumb.type("\x04");
    expect(await dumb.ended()).toBe(0);
    expect(dumb.screen).not.toContain("\x1b");
  });

  test("answers can be redirected, and the terminal is left as it was", async () => {
    const file = join(scratch, "answers.txt");
    const command = `${chat()
      .map((word) => `"${word}"`)
      .join(" ")} > "${file}"; stty -a | grep -c -- "-icanon\\|-echo " ; echo left`;
    const program = new TerminalProgram(["bash", "-c", command], {
      env: { XDG_STATE_HOME: join(scratch, "redirected") },
    });
    await program.until(prompt);
    program.type(`${sum.question}\r`);
    await program.until("tok/s");
    await program.until(prompt);
    program.type("\x04");
    expect(await program.until("left")).toMatch(/0\nleft$/);
    expect(await program.ended()).toBe(0);
    expect(readFileSync(file, "utf8")).toBe(`${sum.answer}\n`);
  });

  test("a model that would steer the terminal is kept from it, an unreadable history is told", async () => {
    const env = { XDG_STATE_HOME: join(scratch, "blocked") };
    writeFileSync(env.XDG_STATE_HOME, "");
    const program = await open([], env);
    expect(program.screen).toMatch(/no history is kept in .*blocked/);
    program.type("\x04");
    expect(await program.ended()).toBe(0);
  });
});
