/** Messages typed at a terminal: line editing by readline, history, completion, several lines at a time. */
import { createInterface, type Interface } from "node:readline";
import type { ReadStream, WriteStream } from "node:tty";
import { environment } from "../../environment";
import { hideKeys } from "../../mlx/system";
import type { Colours } from "../colour";
import type { Completions } from "./complete";
import { countGraphemes } from "./display-width";
import { Draft } from "./draft";
import { type History, historySize } from "./history";
import type { Input, InputSource } from "./input";
import { Keyboard, pasteMarkers } from "./keyboard";

const stdin = 0;

export interface EditorOptions {
  terminal: ReadStream;
  /** Where prompt and line are drawn. */
  screen: WriteStream;
  history: History;
  /** What Tab makes of the line before the cursor. */
  complete(line: string): Promise<Completions>;
  colours: Colours;
}

/**
 * The terminal is raw only while a message is typed: during an answer Ctrl-C and Ctrl-Z are signals as ever. Other keys
 * are kept then, unseen, and are typed into the next line.
 */
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
  /** What the arrow keys bring back, newest first: readline's own list. */
  readonly #history: string[];
  /** Puts the terminal's modes back while keys are hidden. */
  #showKeys: (() => void) | null = null;
  #left = false;

  constructor(private readonly options: EditorOptions) {
    const { terminal, screen, history, complete } = options;
    this.#keyboard = new Keyboard(terminal);
    const readline = createInterface({
      // Readline wants no more of it than what Keyboard has.
      input: this.#keyboard as unknown as ReadStream,
      output: screen,
      terminal: true,
      history: history.load(),
      // It would keep the lines of a message one by one.
      historySize: 0,
      completer: (line: string, done: (error: Error | null, found: Completions) => void) => {
        complete(line).then(
          (found) => done(null, found),
          () => done(null, [[], line]),
        );
      },
    });
    this.#readline = readline;
    this.#history = (readline as unknown as { history: string[] }).history;
    countGraphemes(readline, screen);
    this.#keyboard.on("paste", (text: string) => this.#paste(text));
    readline.on("line", (line) => this.#line(line));
    readline.on("SIGINT", () => this.interrupt());
    // After Ctrl-Z and fg.
    readline.on("SIGCONT", () => this.#prompt());
    process.on("SIGCONT", this.#resumed);
    readline.on("close", () => {
      this.#closed = true;
      this.#give({ end: "input" });
    });
    this.#rest();
    this.#draw(pasteMarkers.on);
  }

  /** The shell has put its own modes in place. */
  readonly #resumed = () => {
    if (this.#showKeys) this.#showKeys = hideKeys(stdin);
  };

  next(): Promise<Input> {
    const ready = this.#ready.shift();
    if (ready) return Promise.resolve(ready);
    return new Promise((resolve) => {
      this.#waiting = resolve;
      this.#showKeys?.();
      this.#showKeys = null;
      this.#keyboard.setRawMode(true);
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
    this.#leave();
  }

  /** Leaves the terminal as it was found. */
  #leave(): void {
    if (this.#left) return;
    this.#left = true;
    process.off("SIGCONT", this.#resumed);
    this.#keyboard.setRawMode(false);
    this.#showKeys?.();
    this.#showKeys = null;
    this.#draw(pasteMarkers.off);
  }

  #paste(text: string): void {
    this.#pasting = text.includes("\n");
    this.#readline.write(text);
    this.#pasting = false;
  }

  #line(line: string): void {
    this.#warned = false;
    const isOneLine = this.#draft.empty;
    const message = this.#draft.add(line, { more: this.#pasting });
    if (message === null) this.#prompt();
    else {
      this.#remember(isOneLine ? line : message);
      this.#give({ message });
    }
  }

  /** A message is one entry, however many lines it has. */
  #remember(entry: string): void {
    if (entry.trim() === "") return;
    const before = this.#history.indexOf(entry);
    if (before >= 0) this.#history.splice(before, 1);
    this.#history.unshift(entry);
    this.#history.splice(historySize);
    this.options.history.append(entry);
  }

  #give(input: Input): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting) {
      if ("end" in input) this.#leave();
      else this.#rest();
      waiting(input);
    } else this.#ready.push(input);
  }

  #prompt(): void {
    const { accent, dim } = this.options.colours;
    this.#readline.setPrompt(this.#draft.empty ? `${accent("›")} ` : `${dim("…")} `);
    this.#readline.prompt(true);
  }

  /** Until the next message is wanted. */
  #rest(): void {
    if (!this.#closed) this.#readline.pause();
    this.#keyboard.setRawMode(false);
    this.#showKeys ??= hideKeys(stdin);
  }

  #draw(text: string): void {
    // A terminal that knows no escape codes shows them.
    if (environment("TERM") !== "dumb" || !text.startsWith("\x1b")) this.options.screen.write(text);
  }
}
