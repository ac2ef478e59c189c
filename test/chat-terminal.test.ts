/** `mlxlm chat` at a terminal. */
import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { demoFolder } from "../src/demo/folder";
import { type Conversation, chat, conversations, runChat } from "./chat-program";
import { copyWithoutEnd } from "./endless-model";
import { TerminalProgram } from "./terminal";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-chat-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const [sum, , story] = conversations[0]!.turns as [Turn, Turn, Turn];
type Turn = Conversation["turns"][number];

const piped = (stdin: string, ...words: string[]) => runChat(scratch, stdin, ...words);

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

test("Ctrl-C stops an answer, which stays as it was printed", async () => {
  const endless = ["--model", copyWithoutEnd(demoFolder(), mkdtempSync(join(scratch, "endless-")))];
  const { out: whole } = await piped(story.question, ...endless, "-m", "800");
  const program = await open([...endless, "-m", "-1"]);
  const file = join(scratch, "stopped.json");
  program.type(`${story.question}\r`);
  const begin = whole.slice(0, 7);
  await program.until(begin);
  program.type("\x03");
  const rest = await program.until("tokens ·");
  await program.until(prompt);
  program.type(`/save ${file}\r`);
  await program.until("2 messages in");
  // Another answer is stopped as the first was.
  program.type("/retry\r");
  await program.until(begin);
  program.type("\x03");
  await program.until("tokens ·");
  await program.until(prompt);
  program.type("/exit\r");
  expect(await program.ended()).toBe(0);
  const stopped = JSON.parse(readFileSync(file, "utf8")).messages[1].content as string;
  expect(whole).toStartWith(stopped);
  expect(stopped.length).toBeLessThan(whole.length - 1);
  // Lines end between words on a terminal.
  const inOneLine = (text: string) => text.replaceAll(/\s+/g, " ");
  expect(inOneLine(`${begin}${rest}`.replace("^C", ""))).toStartWith(inOneLine(`${stopped} `));
}, 20_000);

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
