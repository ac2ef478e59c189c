/** Layout of the pages of help: paragraphs, command lines, and names beside their meanings. */
import { wrapped } from "./width";

/** Longer lines are hard to read. */
const mostColumns = 100;

/** On narrower pages a meaning stands below its name. */
const leastForTwo = 64;

/** Where meanings begin, on wide pages and on narrow ones. */
const beside = 34;
const below = 6;

/** A page of help while it is laid out for so many columns. */
export class Page {
  readonly #lines: string[] = [];
  readonly #columns: number;

  constructor(columns: number) {
    this.#columns = Math.min(columns, mostColumns);
  }

  gap(): void {
    this.#lines.push("");
  }

  text(text: string, indent = 0): void {
    for (const line of wrapped(text, this.#columns - indent)) this.#lines.push(" ".repeat(indent) + line);
  }

  /** A command line; one that is too long stays one for the shell. */
  example(line: string): void {
    if (line.length <= this.#columns) {
      this.#lines.push(line);
      return;
    }
    const continued = " \\";
    const indent = "    ";
    const room = this.#columns - indent.length - continued.length;
    // Between flags, where that is enough.
    const parts = line.split(/ (?=[-<>])/).flatMap((part) => (part.length > room ? wrapped(part, room) : [part]));
    const lines = [parts[0]!];
    for (const part of parts.slice(1)) {
      if (lines.at(-1)!.length + 1 + part.length <= room) lines[lines.length - 1] += ` ${part}`;
      else lines.push(part);
    }
    this.#lines.push(
      ...lines.map((part, i) => `${i > 0 ? indent : ""}${part}${i < lines.length - 1 ? continued : ""}`),
    );
  }

  /** A name, and what it means beside it; below it where it is long, or the page narrow. */
  entry(name: string, meaning: string): void {
    if (this.#columns < leastForTwo) {
      const [head, ...more] = wrapped(name, this.#columns - below);
      this.text(head!, 2);
      for (const line of more) this.text(line, below - 2);
      this.text(meaning, below);
      return;
    }
    const lines = wrapped(meaning, this.#columns - beside);
    const head = `  ${name}`;
    if (head.length + 2 > beside) this.#lines.push(head);
    else this.#lines.push(head.padEnd(beside) + lines.shift()!);
    for (const line of lines) this.#lines.push(" ".repeat(beside) + line);
  }

  end(): string {
    return `${this.#lines.join("\n")}\n`;
  }
}
