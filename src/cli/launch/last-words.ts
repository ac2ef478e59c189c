/** What ranks say when they fail. All may say the same, or that they miss the one that failed: a user reads the cause, once. */

/** How long a line that looks like an error is held back, where its process lives on: that of one who misses a rank may end late. */
const patience = 1000;
const missedPatience = 10_000;

/** A rank's lines on stderr. An error at their end is held back until it is known whether it tells something new. */
export class ErrorLines {
  /** The last line that is not indented: an error's hint stands below it. */
  last = "";
  private held: string[] = [];
  private timer: Timer | undefined;

  /** @param write writes a line @param isAlive whether the process may go on */
  constructor(
    private readonly write: (line: string) => void,
    private readonly isAlive: () => boolean,
  ) {}

  take(line: string): void {
    const isHint = this.held.length > 0 && /^\s/.test(line);
    if (/^\S/.test(line)) this.last = errorIn(line);
    if (!isHint) this.show();
    if (!isHint && !/^(mlxlm: |\{"error":)/.test(line)) {
      this.write(line);
      return;
    }
    this.held.push(line);
    this.timer ??= setTimeout(
      () => {
        if (this.isAlive()) this.show();
      },
      missedRank(this.last) === undefined ? patience : missedPatience,
    );
  }

  /** Writes what is held back. @returns whether there was something */
  show(): boolean {
    const lines = this.forget();
    for (const line of lines) this.write(line);
    return lines.length > 0;
  }

  forget(): readonly string[] {
    clearTimeout(this.timer);
    this.timer = undefined;
    return this.held.splice(0);
  }
}

/** What a line says; the message where it is an error in JSON. */
function errorIn(line: string): string {
  const text = line.trim();
  try {
    const { error } = JSON.parse(text) as { error?: { message?: unknown } };
    if (typeof error?.message === "string") return error.message;
  } catch {
    // Text for people.
  }
  return text.replace(/^mlxlm: /, "");
}

const numberIn = (words: string, pattern: RegExp): number | undefined => {
  const [, rank] = pattern.exec(words) ?? [];
  return rank === undefined ? undefined : Number(rank);
};

/** The rank that is gone, where words say no more than that. */
export const missedRank = (words: string) => numberIn(words, /the connection to rank (\d+) \(.*\) was lost$/);

/** The rank whose error the words tell of, where it is another's. */
export const toldRank = (words: string) => numberIn(words, /^rank (\d+): /);

const ownWords = (words: string) => words.replace(/^rank \d+: /, "");

/** Whether a rank's words tell nothing to who has read `others`. */
export function isRepeated(words: string, others: readonly string[]): boolean {
  return others.some((other) => other !== "" && ownWords(words) === ownWords(other));
}
