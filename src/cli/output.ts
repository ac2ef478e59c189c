/** What a user sees: the answer on stdout, all else on stderr; or JSON, for programs. */

import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import { withDemoNamed } from "../demo/folder";
import { environment } from "../environment";
import { ExitCode } from "../errors";
import { type PrintableOptions, printable } from "../printable";
import { braillePlot } from "./braille-plot";
import { Bars, Progress, type ProgressOptions, type Stage } from "./progress";
import { columnsOf, usualColumns, wrapped } from "./width";
import { WordWrap } from "./word-wrap";

const stdout = 1;
const stderr = 2;

/** Writes all of the text, at once. A reader of answers that has gone away ends the program quietly, as in any pipe. */
function write(descriptor: number, text: string): void {
  let bytes = Buffer.from(text);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(descriptor, bytes));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EPIPE" && descriptor === stderr) return;
      if (code === "EPIPE") process.exit(ExitCode.ok);
      if (code !== "EAGAIN") throw error;
      Bun.sleepSync(1);
    }
  }
}

/** Writes text that may come out of a file, a hub or a model: harmless for a terminal, as it is for a pipe. */
function show(descriptor: number, text: string, options?: PrintableOptions): void {
  write(descriptor, isatty(descriptor) ? printable(text, options) : text);
}

/** A line for stderr, broken between words where a person's terminal is narrower. */
export function fitting(line: string): string {
  return isatty(stderr) ? wrapped(line, columnsOf(stderr)).join("\n") : line;
}

/** Text that is the answer whatever the mode: help, version, completions. */
export function print(text: string): void {
  write(stdout, text);
}

/** A line of another process, as it came. */
export function passOn(stream: "stdout" | "stderr", line: string): void {
  write(stream === "stdout" ? stdout : stderr, `${line}\n`);
}

export class Output {
  readonly #isSilent: boolean;

  /** @param options.isSilent another process of the group says it all */
  constructor(
    readonly json: boolean,
    { isSilent = false } = {},
  ) {
    this.#isSilent = isSilent;
  }

  /** Part of the answer. In JSON it comes with the result. */
  text(text: string, options?: PrintableOptions): void {
    if (!this.#isSilent && !this.json && text !== "") show(stdout, text, options);
  }

  /** Text of a model that comes in pieces: on a terminal, lines end between words. */
  pieces(to: "stdout" | "stderr", paint = (text: string) => text): Pick<WordWrap, "push" | "end"> {
    const descriptor = to === "stdout" ? stdout : stderr;
    const show = (text: string) => (to === "stdout" ? this.text(paint(text)) : this.aside(paint(text)));
    if (isatty(descriptor)) return new WordWrap(() => columnsOf(descriptor), show);
    return { push: show, end() {} };
  }

  /** A line of what surrounds the answer. */
  info(line: string): void {
    this.aside(`${fitting(line)}\n`);
  }

  /** Part of a line of that. */
  aside(text: string): void {
    if (!this.#isSilent && !this.json && text !== "") show(stderr, text, { colours: true });
  }

  /** A line that a user should not miss. */
  warn(line: string): void {
    if (!this.#isSilent) show(stderr, `${fitting(`mlxlm: ${withDemoNamed(line)}`)}\n`);
  }

  /** The one object of a one-shot command. */
  result(object: object): void {
    if (this.json && !this.#isSilent) write(stdout, `${JSON.stringify(object)}\n`);
  }

  /** One line of a long-running command. */
  event(object: { type: string } & Record<string, unknown>): void {
    if (this.json && !this.#isSilent) write(stdout, `${JSON.stringify(object)}\n`);
  }

  /** Points as a picture, where a person looks on. */
  plot(points: readonly (readonly [x: number, y: number])[]): void {
    if (this.json || this.#isSilent || !isatty(stderr) || environment("TERM") === "dumb") return;
    const columns = Math.min(columnsOf(stderr), usualColumns);
    for (const line of braillePlot(points, { columns, rows: 8 })) this.info(line);
  }

  /** A bar on stderr for what takes more than a second; elsewhere than on a terminal a line now and then. */
  progress(label: string, options: ProgressOptions): Progress {
    return new Progress(label, options, this.stage());
  }

  /** The bars of a command that does several things in turn. */
  bars<const Name extends string>(
    bars: Readonly<Record<Name, readonly [label: string, unit: ProgressOptions["unit"]]>>,
  ): Bars<Name> {
    const entries = Object.entries<readonly [string, ProgressOptions["unit"]]>(bars);
    return new Bars(
      Object.fromEntries(entries.map(([name, [label, unit]]) => [name, this.progress(label, { unit })])) as Record<
        Name,
        Progress
      >,
    );
  }

  private stage(): Stage {
    if (this.json || this.#isSilent) return { kind: "none" };
    const isDrawn = isatty(stderr) && !environment("CI") && environment("TERM") !== "dumb";
    const draw = (text: string) => write(stderr, text);
    return isDrawn ? { kind: "line", write: draw, columns: () => columnsOf(stderr) } : { kind: "log", write: draw };
  }
}
