/** A chat: messages in, answers out, commands in between. It outlives whatever goes wrong with one message. */
import { ExitCode } from "../../errors";
import { coloursOf } from "../colour";
import { takeInterrupts } from "../interrupt";
import type { Output } from "../output";
import { reportError } from "../report-error";
import type { Answer, ChatAnswerer } from "./answerer";
import { type CommandedChat, carryOut } from "./commands";
import { Conversation } from "./conversation";
import type { InputSource } from "./input";
import type { Settings } from "./settings";

/** The share of the context from which on a user is told that it gets full. */
const nearlyFull = 0.9;

const stderr = 2;

export interface SessionOptions {
  answerer: ChatAnswerer;
  settings: Settings;
  /** The system message that the conversation begins with. */
  system: string | null;
  /** As the user named it. */
  model: string;
  out: Output;
  input: InputSource;
  /** A person sits at a terminal: Ctrl-C ends an answer and not the chat, errors are not the end's exit code. */
  interactive: boolean;
  /** Ends the chat. */
  signal: AbortSignal;
}

export class ChatSession implements CommandedChat {
  readonly conversation = new Conversation();
  readonly answerer: ChatAnswerer;
  readonly model: string;
  settings: Settings;

  readonly #colours = coloursOf(stderr);
  #leaving = false;
  /** Ends the answer that is being given. */
  #stop: AbortController | null = null;

  constructor(private readonly options: SessionOptions) {
    this.answerer = options.answerer;
    this.settings = options.settings;
    this.conversation.system = options.system;
    this.model = options.model;
  }

  /** Lines about the chat, not of it. */
  readonly tell = (...lines: string[]): void => {
    for (const line of lines) this.options.out.info(line === "" ? "" : this.#colours.dim(`  ${line}`));
  };

  /** Ends the chat after the present command. */
  leave(): void {
    this.#leaving = true;
    this.options.out.info(this.#colours.dim("bye"));
  }

  /** Until the input ends or the user leaves. Sets the exit code. */
  async run(): Promise<void> {
    const { input, signal, interactive } = this.options;
    const release = interactive ? takeInterrupts(() => this.#interrupt()) : () => {};
    const terminate = () => input.close();
    signal.addEventListener("abort", terminate);
    try {
      while (!this.#leaving && !signal.aborted) {
        const next = await input.next();
        if ("message" in next) await this.#take(next.message);
        else {
          if (next.end === "interrupt") process.exitCode = ExitCode.interrupted;
          else if (interactive) this.options.out.info("");
          break;
        }
      }
      if (signal.aborted) process.exitCode = ExitCode.interrupted;
    } finally {
      release();
      signal.removeEventListener("abort", terminate);
      input.close();
    }
  }

  #interrupt(): void {
    if (this.#stop) this.#stop.abort();
    else this.options.input.interrupt?.();
  }

  async #take(message: string): Promise<void> {
    if (message.trim() === "") return;
    try {
      if (!(await carryOut(message, this))) await this.#answer(message);
    } catch (error) {
      const code = reportError(error, { json: this.options.out.json, debug: false });
      if (!this.options.interactive) process.exitCode = code;
    }
  }

  async #answer(message: string): Promise<void> {
    const { out, signal } = this.options;
    const { turns } = this.conversation;
    const page = new Page(out);
    const bar = out.progress("Prompt", { unit: "tok" });
    this.#stop = new AbortController();
    turns.push({ role: "user", content: message });
    let answer: Answer;
    try {
      answer = await this.answerer.answer(this.conversation.messages(), this.settings, {
        onPrefill: (done, total) => (done < total ? bar.at(done, total) : bar.end()),
        onText: (text) => page.text(text),
        onThought: (text) => page.thought(text),
        signal: AbortSignal.any([signal, this.#stop.signal]),
      });
    } catch (error) {
      turns.pop();
      throw error;
    } finally {
      this.#stop = null;
      bar.end();
      page.end();
    }
    if (answer.text === "" && answer.reasoning === "") {
      // Many templates refuse a question without an answer.
      turns.pop();
      this.tell(`No answer${answer.figures.finish_reason === "interrupted" ? " yet" : ""}: the message is forgotten.`);
      return;
    }
    const reasoning = answer.reasoning === "" ? {} : { reasoning_content: answer.reasoning };
    turns.push({ role: "assistant", content: answer.text, ...reasoning });
    this.#report(answer);
  }

  #report({ text, reasoning, cachedTokens, figures, cutBy }: Answer): void {
    const { generation_tokens: count, generation_tps, prompt_tps, peak_memory } = figures;
    const { out } = this.options;
    const cut = cutBy === "max-tokens" ? ["cut off: /set max-tokens N allows more"] : [];
    this.tell(
      [
        `${count} tokens`,
        `${generation_tps.toFixed(1)} tok/s`,
        `prompt ${prompt_tps.toFixed(1)} tok/s`,
        `peak ${peak_memory.toFixed(2)} GB`,
        ...cut,
      ].join(" · "),
    );
    const thoughts = reasoning === "" ? {} : { reasoning };
    out.event({ type: "answer", text, ...thoughts, cached_tokens: cachedTokens, ...figures });
    const { used, contextLength } = this.answerer;
    if (used !== null && contextLength !== null && used >= nearlyFull * contextLength) {
      const full = Math.floor((used / contextLength) * 100);
      out.warn(
        `the conversation fills ${full} % of the model's context (${used} of ${contextLength} tokens): /clear begins a new one`,
      );
    }
  }
}

/** The text of one answer on its way out: the answer to stdout, thoughts dimmed to stderr. */
class Page {
  readonly #colours = coloursOf(stderr);
  readonly #shown = process.stdout.isTTY === true;
  #inThought = false;
  #last = "";

  constructor(private readonly out: Output) {}

  thought(text: string): void {
    if (text === "") return;
    this.#inThought = true;
    this.#last = text;
    this.out.aside(this.#colours.dim(printable(text)));
  }

  text(text: string): void {
    if (text === "") return;
    if (this.#inThought) this.out.aside(this.#last.endsWith("\n") ? "\n" : "\n\n");
    this.#inThought = false;
    this.#last = text;
    this.out.text(this.#shown ? printable(text) : text);
  }

  end(): void {
    if (this.#inThought) this.out.aside("\n");
    else if (this.#last !== "") this.out.text("\n");
  }
}

/** A model's text without control characters: it must not steer the terminal. */
function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, (character) => (character === "\n" || character === "\t" ? character : ""));
}
