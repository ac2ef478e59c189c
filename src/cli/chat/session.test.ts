/** The chat with a model that says what it is told to: thoughts, failures, limits. test/chat.test.ts has the real one. */
import { afterAll, beforeEach, expect, spyOn, test } from "bun:test";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from "../../mlx";
import type { Cache, LanguageModel } from "../../models";
import { loadTokenizer, type Tokenizer } from "../../text/tokenizer";
import { Output } from "../output";
import { ChatAnswerer, type ChatAnswererOptions } from "./answerer";
import { PipedInput } from "./input";
import { ChatSession } from "./session";

const folder = await mkdtemp(join(tmpdir(), "mlxlm-session-"));
afterAll(() => rm(folder, { recursive: true }));

const template = `{% for message in messages %}<|open|>{{ message.role }}
{% if message.reasoning_content %}[{{ message.reasoning_content }}]{% endif %}{{ message.content }}<|close|>
{% endfor %}<|open|>assistant
{% if enable_thinking %}<think>{% endif %}`;

/** A tokenizer with markers of thoughts; its template opens one, and keeps those of the past. */
async function thinkingTokenizer(): Promise<Tokenizer> {
  await cp(join(import.meta.dir, "../../../test/fixtures/checkpoint"), folder, { recursive: true });
  const config = await Bun.file(join(folder, "tokenizer_config.json")).json();
  const token = (content: string) => ({
    content,
    special: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    single_word: false,
  });
  config.added_tokens_decoder = { 384: token("<think>"), 385: token("</think>") };
  await Bun.write(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  return loadTokenizer(folder, { chatTemplate: template });
}

const tokenizer = await thinkingTokenizer();
const vocabSize = 400;
const eos = tokenizer.idOf("<|close|>")!;
const unbounded: ChatAnswererOptions = { contextLength: null };

/** A layer's memory that only counts. */
class Counter implements Cache {
  size = 0;
  readonly state = [];
  readonly nbytes = 0;
  get empty() {
    return this.size === 0;
  }
  isTrimmable = () => true;
  trim(count: number) {
    this.size -= count;
    return count;
  }
  dispose() {
    this.size = 0;
  }
}

/** Answers each prompt with the next of some texts; a function in their place is called, to fail or to interrupt. */
class Parrot {
  readonly layers = [];
  readonly vocabSize = vocabSize;
  readonly prompts: string[] = [];
  #script: (number | (() => void))[] = [];
  #at = 0;

  constructor(private readonly answers: (string | (() => void))[][]) {}

  /** To be called with each prompt before the answer. */
  async expect(prompt: readonly number[]): Promise<void> {
    this.prompts.push(tokenizer.decode([...prompt]));
    this.#at = prompt.length - 1;
    this.#script = [];
    for (const part of this.answers.shift() ?? []) {
      this.#script.push(
        ...(typeof part === "string" ? await tokenizer.encode(part, { addSpecialTokens: false }) : [part]),
      );
    }
  }

  forward(inputs: mx.Tensor, { cache }: { cache?: readonly Cache[] } = {}): mx.Tensor {
    const counter = cache![0] as Counter;
    counter.size += inputs.dim(1);
    let said = this.#script[counter.size - 1 - this.#at] ?? eos;
    if (typeof said === "function") {
      said();
      said = eos;
    }
    return mx.arange(vocabSize).equal(said).astype("float32").multiply(50).reshape(1, 1, -1);
  }

  makeCache = () => [new Counter()];
  dispose() {}
}

class Recorder extends Output {
  answers = "";
  about = "";
  readonly events: Record<string, unknown>[] = [];
  override text(text: string) {
    this.answers += text;
  }
  override aside(text: string) {
    this.about += text;
  }
  override warn(line: string) {
    this.about += `! ${line}\n`;
  }
  override event(object: { type: string } & Record<string, unknown>) {
    this.events.push(object);
  }
}

/** Lines of stdin, and what comes of them. */
async function chat(lines: string[], answers: (string | (() => void))[][], options: Partial<ChatAnswererOptions> = {}) {
  const parrot = new Parrot(answers);
  const answerer = new ChatAnswerer(parrot as unknown as LanguageModel, tokenizer, { ...unbounded, ...options });
  const encodeChat = tokenizer.encodeChat.bind(tokenizer);
  const spy = spyOn(tokenizer, "encodeChat").mockImplementation(async (...words) => {
    const prompt = await encodeChat(...words);
    await parrot.expect(prompt);
    return prompt;
  });
  const out = new Recorder(false);
  const { signal } = new AbortController();
  const session = new ChatSession({
    answerer,
    settings: {
      temp: 0,
      topP: 1,
      minP: 0,
      topK: 0,
      xtcProbability: 0,
      xtcThreshold: 0.1,
      seed: 0,
      maxTokens: 256,
      thinking: undefined,
    },
    system: null,
    model: "parrot",
    out,
    input: new PipedInput(new Blob([lines.join("\n")]).stream(), signal),
    interactive: false,
    signal,
  });
  await session.run();
  spy.mockRestore();
  answerer.forget();
  return { session, out, parrot };
}

const problems: string[] = [];
beforeEach(() => {
  problems.length = 0;
  process.exitCode = 0;
  spyOn(console, "error").mockImplementation((...words) => void problems.push(words.join(" ")));
});
afterAll(() => {
  process.exitCode = 0;
});

test("thoughts go to stderr, dimmed where colours are wanted, and the answer alone to stdout", async () => {
  process.env.FORCE_COLOR = "1";
  const { out, session } = await chat(["hi"], [["\nLet me see.\n</think>\n\nHello!"]]);
  delete process.env.FORCE_COLOR;
  expect(out.answers).toBe("Hello!\n");
  expect(out.about).toContain("\x1b[2m");
  expect(Bun.stripANSI(out.about)).toStartWith("Let me see.\n\n");
  expect(session.conversation.turns).toEqual([
    { role: "user", content: "hi" },
    { role: "assistant", content: "Hello!", reasoning_content: "Let me see.\n" },
  ]);
  expect(out.events).toEqual([
    expect.objectContaining({ type: "answer", text: "Hello!", reasoning: "Let me see.\n", finish_reason: "stop" }),
  ]);
  const { out: plain } = await chat(["hi"], [["\nLet me see.\n</think>\n\nHello!"]]);
  expect(plain.about).not.toContain("\x1b");
});

test("the next prompt has question, thought and answer, and starts from the tokens that it shares", async () => {
  const { out, parrot } = await chat(["one", "two"], [["a</think>b"], ["</think>c"]]);
  expect(parrot.prompts[1]).toBe(
    "<|open|>user\none<|close|>\n<|open|>assistant\n[a]b<|close|>\n<|open|>user\ntwo<|close|>\n<|open|>assistant\n<think>",
  );
  const shared = await tokenizer.encode("<|open|>user\none<|close|>\n<|open|>assistant\n", { addSpecialTokens: false });
  expect(out.events.map((event) => event.cached_tokens)).toEqual([0, shared.length]);
});

test("/set thinking decides whether the template opens a thought", async () => {
  const { out, parrot } = await chat(["/set thinking off", "hi", "/set thinking on", "hi"], [["a"], ["b</think>c"]]);
  expect(parrot.prompts.map((prompt) => prompt.endsWith("<think>"))).toEqual([false, true]);
  expect(out.answers).toBe("a\nc\n");
});

test("an answer that fails is told, its message forgotten, and the chat goes on", async () => {
  const fail = () => {
    throw new Error("the model broke");
  };
  const { out, parrot, session } = await chat(
    ["one", "two", "three"],
    [["</think>a"], ["</think>bb", fail], ["</think>c"]],
  );
  expect(problems.join("\n")).toContain("the model broke");
  expect(out.answers).toBe("a\nb\nc\n");
  expect(session.conversation.turns.map(({ content }) => content)).toEqual(["one", "a", "three", "c"]);
  expect(parrot.prompts[2]).not.toContain("two");
  // Nothing is known of the cache after a failure.
  expect(out.events.map((event) => event.cached_tokens)).toEqual([0, 0]);
  expect(process.exitCode).toBe(1);
});

test("nothing but the end: the message is forgotten", async () => {
  const { out, session } = await chat(["hi"], [[]]);
  expect(out.about).toContain("No answer: the message is forgotten.");
  expect(session.conversation.turns).toEqual([]);
});

test("a thought that never ends is kept, with no answer", async () => {
  const { session, out } = await chat(["/set max_tokens 3", "hi"], [["abcdefgh"]]);
  expect(session.conversation.turns[1]).toEqual({ role: "assistant", content: "", reasoning_content: "abc" });
  expect(out.answers).toBe("");
  expect(out.about).toContain("abc\n");
  expect(out.about).toContain("cut off: /set max-tokens N allows more");
});

test("a context that gets full: warned at 90 %, the answer cut at its end, the next message refused", async () => {
  const prompt = await tokenizer.encode("<|open|>user\nhi<|close|>\n<|open|>assistant\n<think>", {
    addSpecialTokens: false,
  });
  const contextLength = prompt.length + 8;
  const { out, session } = await chat(["hi", "again"], [["</think>abcdefghijklmnop"]], { contextLength });
  expect(out.answers).toBe("abcdefg\n");
  expect(out.events[0]).toMatchObject({ finish_reason: "length", generation_tokens: 8 });
  expect(out.about).toContain(
    `! the conversation fills 100 % of the model's context (${contextLength} of ${contextLength} tokens)`,
  );
  expect(problems.join("\n")).toMatch(/the conversation has \d+ tokens, and the model takes \d+\n.*\/clear/);
  expect(session.conversation.turns.length).toBe(2);
  expect(process.exitCode).toBe(2);

  const rolling = await chat(["hi", "again"], [["</think>ab"], ["</think>cd"]], { contextLength: 4, maxKvSize: 4 });
  expect(rolling.out.answers).toBe("ab\ncd\n");
  expect(rolling.out.about).not.toContain("context");
});

test("a template that refuses a message ends only that message", async () => {
  const { out } = await chat(
    ["/system x", "hi", "/load nowhere.json", "/nonsense", "/set temp hot", "/set", "hi"],
    [["</think>a"], ["</think>b"]],
  );
  expect(problems.join("\n")).toMatch(/there is no file .*nowhere.json/);
  expect(problems.join("\n")).toContain("there is no command /nonsense");
  expect(problems.join("\n")).toContain('/set temp must be a number, not "hot"');
  expect(problems.join("\n")).toContain("/set needs a name and a value");
  expect(out.answers).toBe("a\nb\n");
});

test("/load: the file's system message wins, else the present one stays; it is told which", async () => {
  const plain = join(folder, "plain.json");
  const own = join(folder, "own.json");
  const saved = await chat(["hi", `/save ${plain}`, "/system Be an owl.", `/save ${own}`], [["</think>a"]]);
  expect(saved.out.about).toContain("3 messages in");

  const kept = await chat(["/system Be a fox.", `/load ${plain}`, "/system"], []);
  expect(kept.session.conversation.system).toBe("Be a fox.");
  expect(kept.out.about).toContain("2 messages loaded.\n  The system message stays: the file has none.\n  Be a fox.\n");
  const replaced = await chat(["/system Be a fox.", `/load ${own}`], []);
  expect(replaced.session.conversation.system).toBe("Be an owl.");
  expect(replaced.out.about).toContain("3 messages loaded.\n  The system message is the file's.\n");
  const none = await chat([`/load ${plain}`], []);
  expect(none.session.conversation.system).toBeNull();
  expect(none.out.about).toEndWith("2 messages loaded.\n");
});

test("/show counts the tokens of what no answer has counted", async () => {
  const file = join(folder, "counted.json");
  await chat(["hi", `/save ${file}`], [["</think>abc"]]);
  const answered = { role: "assistant", content: "abc" };
  const count = (await tokenizer.encodeChat([{ role: "user", content: "hi" }, answered])).length;
  const { out } = await chat(["/show", `/load ${file}`, "/show", "/clear", "/show"], [], { contextLength: 1000 });
  const contexts = out.about.split("\n").filter((line) => line.trim().startsWith("context"));
  expect(contexts.map((line) => line.replace(/ +/g, " "))).toEqual(
    [0, count, 0].map((tokens) => ` context ${tokens} of 1000 tokens`),
  );
  expect(out.about).toContain("reset context cleared: the conversation is forgotten.\n");
});

test("/set as other chats have it, and /set system", async () => {
  const { session, out } = await chat(
    [
      "/set parameter temperature 0.7",
      '/set system """Be',
      'a fox."""',
      "/set system",
      '/set system ""',
      "/set system",
    ],
    [],
  );
  expect(session.settings.temp).toBe(0.7);
  expect(out.about.split("\n").map((line) => line.trim())).toEqual([
    ...["temp is 0.7.", "The system message is set.", "Be", "a fox.", "The system message is gone."],
    ...["There is no system message.", ""],
  ]);
});

test.each(["exit", "quit", "bye", "/bye", " exit "])("%j alone ends the chat", async (word) => {
  const { out, session } = await chat([word, "hi"], [["</think>a"]]);
  expect(out.about).toBe("bye\n");
  expect(session.conversation.turns).toEqual([]);
});

test("a message that begins with such a word is one to the model; / alone lists the commands", async () => {
  const { out, session } = await chat(["exit the cave", "/"], [["</think>a"]]);
  expect(session.conversation.turns[0]!.content).toBe("exit the cave");
  expect(out.about).toContain("/system [TEXT]");
});

test("a chat leaves no tensor behind", async () => {
  await chat(["hi"], [["</think>a"]]);
  const before = mx.liveHandles();
  const fail = () => {
    throw new Error("the model broke");
  };
  await chat(["one", "two", "three"], [["a</think>b"], [fail], ["</think>c"]]);
  expect(mx.liveHandles()).toBe(before);
});
