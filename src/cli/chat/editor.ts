/** Messages typed at a terminal: line editing by readline, history, completion, several lines at a time. */
import { createInterface, type Interface } from "node:readline";
import type { ReadStream, WriteStream } from "node:tty";
import { environment } from "../../environment";
import type { Colours } from "../colour";
import { Draft } from "./draft";
import { type History, historySize } from "./history";
import type { Input, InputSource } from "./input";
import { Keyboard, pasteMarkers } from "./keyboard";

export interface EditorOptions {
  terminal: ReadStream;
  /** Where prompt and line are drawn. */
  screen: WriteStream;
  history: History;
  /** What Tab completes at the start of a line. */
  words: readonly string[];
  colours: Colours;
}

/** The terminal is raw only while a message is typed: during an answer Ctrl-C and Ctrl-Z are signals as ever. */
export class LineEditor implements InputSource {
  readonly #keyboard: Keyboard;
  readonly #readline: Interface;
  readonly #draft = new Draft();
  /** What is complete, or the end, before anyone asks for it. */
  readonly #ready: Input[] = [];
  #waiting: ((input: Input) => void) | null = null;
  #pasting = false;
  #warned = false;
  #closed = false;
  /** Whether the terminal is raw. */
  #typing = false;

  constructor(private readonly options: EditorOptions) {
    const { terminal, screen, history, words } = options;
    this.#keyboard = new Keyboard(terminal);
    const readline = createInterface({
      // Readline wants no more of it than what Keyboard has.
      input: this.#keyboard as unknown as ReadStream,
      output: screen,
      terminal: true,
      history: history.load(),
      historySize,
      removeHistoryDuplicates: true,
      completer: (line: string) => [words.filter((word) => word.startsWith(line)), line],
    });
    this.#readline = readline;
    this.#keyboard.on("paste", (text: string) => this.#paste(text));
    readline.on("history", (lines) => {
      if (this.#pasting) lines.shift();
    });
    readline.on("line", (line) => this.#line(line));
    readline.on("SIGINT", () => this.interrupt());
    // After Ctrl-Z and fg.
    readline.on("SIGCONT", () => this.#prompt());
    readline.on("close", () => {
      this.#closed = true;
      this.#give({ end: "input" });
    });
    this.#rest();
  }

  next(): Promise<Input> {
    const ready = this.#ready.shift();
    if (ready) return Promise.resolve(ready);
    return new Promise((resolve) => {
      this.#waiting = resolve;
      this.#typing = true;
      this.#keyboard.setRawMode(true);
      this.#draw(pasteMarkers.on);
      this.#prompt();
    });
  }

  /** Ctrl-C: drops what has been typed; where there is nothing, the second one in a row ends the chat. */
  interrupt(): void {
    if (this.#readline.line === "" && this.#draft.empty) {
      if (this.#warned) {
        this.#give({ end: "interrupt" });
        return;
      }
      this.#warned = true;
      this.#draw("\nAnother Ctrl-C ends the chat, and so do Ctrl-D and /exit.\n");
    } else {
      this.#readline.write(null, { ctrl: true, name: "e" });
      this.#readline.write(null, { ctrl: true, name: "u" });
      if (!this.#draft.empty) this.#draw("\n");
      this.#draft.clear();
    }
    this.#prompt();
  }

  close(): void {
    if (!this.#closed) this.#readline.close();
    this.#rest();
  }

  #paste(text: string): void {
    this.#pasting = text.includes("\n");
    this.#readline.write(text);
    this.#pasting = false;
  }

  #line(line: string): void {
    this.#warned = false;
    if (!this.#pasting) this.options.history.append(line);
    const message = this.#draft.add(line, { more: this.#pasting });
    if (message === null) this.#prompt();
    else this.#give({ message });
  }

  #give(input: Input): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting) {
      this.#rest();
      waiting(input);
    } else this.#ready.push(input);
  }

  #prompt(): void {
    const { accent, dim } = this.options.colours;
    this.#readline.setPrompt(this.#draft.empty ? `${accent("›")} ` : `${dim("…")} `);
    this.#readline.prompt(true);
  }

  /** Leaves the terminal as it was found. */
  #rest(): void {
    if (!this.#closed) this.#readline.pause();
    if (this.#typing) this.#draw(pasteMarkers.off);
    this.#typing = false;
    this.#keyboard.setRawMode(false);
  }

  #draw(text: string): void {
    // A terminal that knows no escape codes shows them.
    if (environment("TERM") !== "dumb" || !text.startsWith("\x1b")) this.options.screen.write(text);
  }
}
