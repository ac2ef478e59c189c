/** A message while it is typed: one line, a pasted block, or all that stands between two `"""`. */

const fence = '"""';

/** What opens a message of several lines: `"""`, or a command whose argument begins so. */
const opening = /^(\/[a-z]+\s+(?:system\s+)?)?"""/;

export class Draft {
  #lines: string[] = [];
  #fenced = false;

  get empty(): boolean {
    return this.#lines.length === 0;
  }

  /**
   * Adds a line and returns the message that it completes, if it does.
   * @param more further lines are on their way, so that this one completes nothing
   */
  add(line: string, { more = false } = {}): string | null {
    const opened = this.empty ? opening.exec(line) : null;
    if (opened) this.#fenced = true;
    const text = opened ? (opened[1] ?? "") + line.slice(opened[0].length) : line;
    const closes = this.#fenced && text.trimEnd().endsWith(fence);
    if (closes) this.#fenced = false;
    this.#lines.push(closes ? text.trimEnd().slice(0, -fence.length) : text);
    return this.#fenced || more ? null : this.take();
  }

  /** What there is so far, without the line breaks at its ends; the draft is empty then. */
  take(): string {
    const text = this.#lines.join("\n").replace(/^\n|\n$/g, "");
    this.clear();
    return text;
  }

  clear(): void {
    this.#lines = [];
    this.#fenced = false;
  }
}
