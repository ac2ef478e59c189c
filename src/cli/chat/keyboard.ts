/** The keys of a terminal, as readline reads them, with pasted text apart. */
import { EventEmitter } from "node:events";
import { StringDecoder } from "node:string_decoder";
import type { ReadStream } from "node:tty";

/** Terminals put these around what is pasted, once they are asked to. */
const pasteStart = "\x1b[200~";
const pasteEnd = "\x1b[201~";
export const pasteMarkers = { on: "\x1b[?2004h", off: "\x1b[?2004l" };

const interruptKey = "\x03";

/**
 * Emits "data" with keys, "paste" with pasted text, "end" when no more comes. Readline takes it for a terminal. Text of
 * several characters at once counts as pasted too: readline's work for single keys grows with the line's length.
 */
export class Keyboard extends EventEmitter {
  readonly isTTY = true;
  readonly #decoder = new StringDecoder("utf8");
  #unread = "";
  #pasting = false;

  constructor(private readonly terminal: ReadStream) {
    super();
    terminal.on("data", (bytes: Buffer) => this.#take(this.#decoder.write(bytes)));
    terminal.on("end", () => this.emit("end"));
    terminal.on("error", () => this.emit("end"));
  }

  pause(): this {
    this.terminal.pause();
    return this;
  }

  resume(): this {
    this.terminal.resume();
    return this;
  }

  setRawMode(raw: boolean): this {
    this.terminal.setRawMode(raw);
    return this;
  }

  #take(text: string): void {
    if (this.#pasting && text === interruptKey) {
      // The end of the paste never came.
      this.#unread = "";
      this.#pasting = false;
    }
    let rest = this.#unread + text;
    this.#unread = "";
    while (rest !== "") {
      const marker = this.#pasting ? pasteEnd : pasteStart;
      // What was looked through before need not be looked through again.
      const at = rest.indexOf(marker, Math.max(0, rest.length - text.length - marker.length));
      if (at < 0) {
        this.#hold(rest, marker);
        return;
      }
      if (this.#pasting) this.#paste(rest.slice(0, at));
      else this.#keys(rest.slice(0, at));
      this.#pasting = !this.#pasting;
      rest = rest.slice(at + marker.length);
      text = rest;
    }
  }

  /** Keeps an unfinished paste, or the beginning of a marker; all else are keys. */
  #hold(rest: string, marker: string): void {
    let held = this.#pasting ? rest.length : 0;
    if (!this.#pasting) {
      for (let length = marker.length - 1; length >= 2 && held === 0; length--) {
        if (rest.endsWith(marker.slice(0, length))) held = length;
      }
    }
    this.#unread = rest.slice(rest.length - held);
    this.#keys(rest.slice(0, rest.length - held));
  }

  #keys(text: string): void {
    if (/^\P{Cc}{2,}$/u.test(text)) this.emit("paste", text);
    else if (text !== "") this.emit("data", text);
  }

  #paste(text: string): void {
    const lines = text.replace(/\r\n?/g, "\n");
    this.emit(
      "paste",
      lines.replace(/\p{Cc}/gu, (character) => (character === "\n" || character === "\t" ? character : "")),
    );
  }
}
