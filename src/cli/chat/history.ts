/** The messages that were typed in earlier chats, in a file that several chats may share at a time. */
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { environment } from "../../environment";
import { homeFolder } from "../../home";

/** Stands for a line break inside of an entry: a line of the file is an entry. */
const lineBreak = "\u2028";

/** How many lines an arrow key can go back. */
export const historySize = 1000;

/** Bytes beyond which the file is cut down to the latest lines. */
const largest = 2 ** 20;

/** Characters of the longest line that is kept: an append of this size is whole, even beside another chat's. */
const longest = 2000;

/** Where mlxlm keeps what only the user could make again: $XDG_STATE_HOME/mlxlm, else the platform's folder. */
function stateFolder(): string {
  const named = environment("XDG_STATE_HOME");
  if (named) return join(named, "mlxlm");
  const usual = process.platform === "darwin" ? "Library/Application Support/mlxlm" : ".local/state/mlxlm";
  return join(homeFolder() ?? "/", usual);
}

export class History {
  #last = "";
  #works = true;

  /** @param warn told once where the file cannot be read or written; the chat goes on without it */
  constructor(
    private readonly warn: (message: string) => void,
    private readonly path: string = join(stateFolder(), "chat_history"),
  ) {}

  /** The latest lines, newest first, as readline wants them. */
  load(): string[] {
    const lines = this.#try(() => this.#read()) ?? [];
    this.#last = lines[0] ?? "";
    return lines;
  }

  /** Keeps a line, unless it is blank, very long, or the same as the one before. */
  append(line: string): void {
    if (!keeps(line) || line === this.#last) return;
    this.#last = line;
    this.#try(() => {
      mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 });
      // Opened anew for each line: another chat may have put a shorter file in its place.
      appendFileSync(this.path, `${line.replaceAll("\n", lineBreak)}\n`, { mode: 0o600 });
    });
  }

  #read(): string[] {
    const facts = statSync(this.path, { throwIfNoEntry: false });
    if (!facts) return [];
    if (!facts.isFile()) throw new Error("it is no file");
    if (facts.mode & 0o077) chmodSync(this.path, 0o600);
    const text = readFileSync(this.path, "utf8");
    const lines = text.split("\n").filter(keeps).slice(-historySize);
    if (facts.size > largest) this.#shorten(lines, facts.size);
    return lines.reverse().map((line) => line.replaceAll(lineBreak, "\n"));
  }

  /** Replaces the file, unless another chat has written to it meanwhile: the next start does it then. */
  #shorten(lines: readonly string[], size: number): void {
    const temporary = `${this.path}.${process.pid}`;
    writeFileSync(temporary, lines.map((line) => `${line}\n`).join(""), { mode: 0o600 });
    if (statSync(this.path).size === size) renameSync(temporary, this.path);
    else rmSync(temporary, { force: true });
  }

  #try<T>(work: () => T): T | null {
    if (!this.#works) return null;
    try {
      return work();
    } catch (error) {
      this.#works = false;
      this.warn(`no history is kept in ${this.path}: ${(error as Error).message}`);
      return null;
    }
  }
}

/** A line with control characters would be played back to the terminal. */
function keeps(line: string): boolean {
  return line.trim() !== "" && line.length <= longest && !/\p{Cc}/u.test(line.replaceAll(/[\t\n]/g, " "));
}
