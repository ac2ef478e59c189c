/** A chat: messages in, answers out, commands in between. It outlives whatever goes wrong with one message. */
import { counted } from "../../counted";
import { ExitCode, UserError } from "../../errors";
import { isLaunched, isLead } from "../../mlx/group-environment";
import { coloursOf } from "../colour";
import { draftLine } from "../drafts";
import { takeInterrupts } from "../interrupt";
import type { Output } from "../output";
import { reportError } from "../report-error";
import type { Answer, ChatAnswerer } from "./answerer";
import { type CommandedChat, carryOut } from "./commands";
import { Conversation, type Message } from "./conversation";
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
  /** Opens another model for the conversation to go on with, in place of the one that there is. */
  open?: (name: string) => Promise<{ answerer: ChatAnswerer; model: string }>;
  /** A person sits at a terminal: Ctrl-C ends an answer and not the chat, errors are not the end's exit code. */
  interactive: boolean;
  /** Ends the chat. */
  signal: AbortSignal;
}

export class ChatSession implements CommandedChat {
  readonly conversation = new Conversation();
  answerer: ChatAnswerer;
  model: string;
  settings: Settings;
  /** Where the conversation was saved or loaded. */
  file: string | null = null;

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
    for (const line of lines) this.options.out.info(line === "" ? "" : `  ${this.#colours.dim(line)}`);
  };

  /** Ends the chat after the present command. */
  leave(): void {
    this.#leaving = true;
    this.options.out.info(this.#colours.dim("bye"));
  }

  /** Whether a person says yes; a pipe cannot be asked, and is taken to know what it does. */
  async confirmed(question: string): Promise<boolean> {
    const { input, interactive } = this.options;
    if (!interactive) return true;
    this.tell(`${question} (y/n)`);
    const next = await input.next();
    if ("message" in next) return /^y(es)?$/i.test(next.message.trim());
    this.#leaving = true;
    return false;
  }

  /** The conversation goes on with another model. @throws UserError where it cannot be had: the present one stays */
  async switchTo(name: string): Promise<void> {
    const { open } = this.options;
    if (!open) throw new UserError("this chat has one model only");
    const { answerer, model } = await open(name);
    this.answerer = answerer;
    this.model = model;
  }

  /** Takes the last message back, and what was answered to it. @throws UserError where there is none */
  takeBack(): Message[] {
    const { turns } = this.conversation;
    const at = turns.findLastIndex(({ role }) => role === "user");
    if (at < 0) throw new UserError("nothing has been said yet");
    this.answerer.used = null;
    return turns.splice(at);
  }

  /** Has the last message answered anew. */
  async retry(): Promise<void> {
    const [question, ...answer] = this.takeBack();
    try {
      await this.#answer(question!.content);
    } catch (error) {
      this.conversation.turns.push(question!, ...answer);
      throw error;
    }
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
      // What a user can act on fails on all ranks, and one says it. Anything else, and a lack of memory, may have failed here alone: the
      // ranks have parted.
      const isShared = error instanceof UserError && error.code !== ExitCode.resources;
      if (isLaunched() && !isShared) throw error;
      if (!isLead()) return;
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
    const { generation_tokens: count, generation_tps, prompt_tps, peak_memory, drafts } = figures;
    const { out } = this.options;
    const cut = cutBy === "max-tokens" ? ["cut off: /set max-tokens N allows more"] : [];
    this.tell(
      [
        counted(count, "token"),
        `${generation_tps.toFixed(1)} tok/s`,
        `prompt ${prompt_tps.toFixed(1)} tok/s`,
        `peak ${peak_memory.toFixed(2)} GB`,
        ...(drafts ? [draftLine(drafts)] : []),
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
  readonly #shown = process.stdout.isTTY === true;
  readonly #answer: ReturnType<Output["pieces"]>;
  readonly #thought: ReturnType<Output["pieces"]>;
  #inThought = false;
  #last = "";

  constructor(private readonly out: Output) {
    this.#answer = out.pieces("stdout");
    this.#thought = out.pieces("stderr", coloursOf(stderr).dim);
  }

  thought(text: string): void {
    if (text === "") return;
    this.#inThought = true;
    this.#last = text;
    this.#thought.push(printable(text));
  }

  text(text: string): void {
    if (text === "") return;
    if (this.#inThought) {
      this.#thought.end();
      this.out.aside(this.#last.endsWith("\n") ? "\n" : "\n\n");
    }
    this.#inThought = false;
    this.#last = text;
    this.#answer.push(this.#shown ? printable(text) : text);
  }

  end(): void {
    this.#thought.end();
    this.#answer.end();
    if (this.#inThought) this.out.aside("\n");
    else if (this.#last !== "") this.out.text("\n");
  }
}

/** A model's text without control characters: it must not steer the terminal. */
function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, (character) => (character === "\n" || character === "\t" ? character : ""));
}
