/** Text that comes in pieces, with line breaks between words where a terminal would break inside of one. */

/** Scripts without spaces: a line may end after any of their letters. */
const breaksAnywhere = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/u;

const tabStop = 8;

/** A word is written when it is whole. */
export class WordWrap {
  #word = "";
  #spaces = "";
  #column = 0;

  /** @param columns of the terminal, which may change */
  constructor(
    private readonly columns: () => number,
    private readonly write: (text: string) => void,
  ) {}

  push(text: string): void {
    let ready = "";
    for (const letter of text) {
      if (letter === "\n") {
        ready += `${this.#take()}\n`;
        this.#spaces = "";
        this.#column = 0;
      } else if (letter === " " || letter === "\t") {
        ready += this.#take();
        this.#spaces += letter;
      } else {
        if (breaksAnywhere.test(letter)) ready += this.#take();
        this.#word += letter;
      }
    }
    if (ready !== "") this.write(ready);
  }

  /** Writes what is left. */
  end(): void {
    const rest = this.#take();
    if (rest !== "") this.write(rest);
    this.#spaces = "";
    this.#column = 0;
  }

  /** The word, behind the spaces or on a new line. */
  #take(): string {
    const word = this.#word;
    if (word === "") return "";
    this.#word = "";
    const spaces = this.#spaces;
    this.#spaces = "";
    const columns = this.columns();
    const width = Bun.stringWidth(word);
    let start = this.#column;
    for (const space of spaces) start = space === "\t" ? (Math.floor(start / tabStop) + 1) * tabStop : start + 1;
    if (this.#column > 0 && start + width > columns) {
      this.#column = width <= columns ? width : width % columns;
      return `\n${word}`;
    }
    this.#column = start + width <= columns ? start + width : (start + width) % columns;
    return spaces + word;
  }
}
