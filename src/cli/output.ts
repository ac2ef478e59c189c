/** What a user sees: the answer on stdout, all else on stderr; or JSON, for programs. */
import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import { environment } from "../environment";
import { ExitCode } from "../errors";
import { type PrintableOptions, printable } from "../printable";
import { braillePlot } from "./braille-plot";
import { Progress, type ProgressOptions } from "./progress";

const stdout = 1;
const stderr = 2;

/** Writes all of the text, at once. A reader that has gone away ends the program quietly, as in any pipe. */
function write(descriptor: number, text: string): void {
  let bytes = Buffer.from(text);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(descriptor, bytes));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
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

/** Text that is the answer whatever the mode: help, version, completions. */
export function print(text: string): void {
  write(stdout, text);
}

export class Output {
  constructor(readonly json: boolean) {}

  /** Part of the answer. In JSON it comes with the result. */
  text(text: string): void {
    if (!this.json && text !== "") show(stdout, text);
  }

  /** A line of what surrounds the answer. */
  info(line: string): void {
    this.aside(`${line}\n`);
  }

  /** Part of a line of that. */
  aside(text: string): void {
    if (!this.json && text !== "") show(stderr, text, { colours: true });
  }

  /** A line that a user should not miss. */
  warn(line: string): void {
    show(stderr, `mlxlm: ${line}\n`);
  }

  /** The one object of a one-shot command. */
  result(object: object): void {
    if (this.json) write(stdout, `${JSON.stringify(object)}\n`);
  }

  /** One line of a long-running command. */
  event(object: { type: string } & Record<string, unknown>): void {
    if (this.json) write(stdout, `${JSON.stringify(object)}\n`);
  }

  /** Points as a picture, where a person looks on. */
  plot(points: readonly (readonly [x: number, y: number])[]): void {
    if (this.json || !isatty(stderr) || environment("TERM") === "dumb") return;
    const columns = Math.min(process.stderr.columns || 80, 80);
    for (const line of braillePlot(points, { columns, rows: 8 })) this.info(line);
  }

  /** A bar on stderr, shown where a person looks on and it takes more than a second. */
  progress(label: string, options: ProgressOptions): Progress {
    const visible = !this.json && isatty(stderr) && !environment("CI") && environment("TERM") !== "dumb";
    return new Progress(label, options, visible ? (text) => write(stderr, text) : null);
  }
}
