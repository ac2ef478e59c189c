/** Where a chat's messages come from: a terminal's line editor, or the lines of stdin. */
import { Draft } from "./draft";

/** A message, or why no more will come. */
export type Input = { message: string } | { end: "input" | "interrupt" };

export interface InputSource {
  next(): Promise<Input>;
  /** Ctrl-C while no answer is given; where absent, it is nothing special. */
  interrupt?(): void;
  /** No more is wanted: `next`, if it is under way, ends. */
  close(): void;
}

/** Messages from a pipe or a file: one a line, or all between two `"""`. The last line needs no line break. */
export class PipedInput implements InputSource {
  readonly #lines: AsyncGenerator<string>;

  constructor(
    private readonly stream: ReadableStream<Uint8Array>,
    private readonly signal: AbortSignal,
  ) {
    this.#lines = this.#read();
  }

  async next(): Promise<Input> {
    const draft = new Draft();
    for (let line = await this.#lines.next(); !line.done; line = await this.#lines.next()) {
      const message = draft.add(line.value);
      if (message !== null) return { message };
    }
    if (this.signal.aborted) return { end: "interrupt" };
    return draft.empty ? { end: "input" } : { message: draft.take() };
  }

  close(): void {
    void this.#lines.return(undefined);
  }

  async *#read(): AsyncGenerator<string, void, void> {
    const decoder = new TextDecoder();
    const reader = this.stream.getReader();
    const stop = () => void reader.cancel().catch(() => {});
    this.signal.addEventListener("abort", stop);
    /** The pieces of a line that is not whole yet. */
    let pieces: string[] = [];
    try {
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const [first, ...others] = decoder.decode(part.value, { stream: true }).split("\n");
        pieces.push(first!);
        for (const piece of others) {
          yield withoutReturn(pieces.join(""));
          if (this.signal.aborted) return;
          pieces = [piece];
        }
      }
      pieces.push(decoder.decode());
      const rest = withoutReturn(pieces.join(""));
      if (rest !== "" && !this.signal.aborted) yield rest;
    } finally {
      this.signal.removeEventListener("abort", stop);
      stop();
    }
  }
}

const withoutReturn = (line: string) => (line.endsWith("\r") ? line.slice(0, -1) : line);
