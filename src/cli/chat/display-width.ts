/** Where readline believes the cursor to be: by grapheme, as terminals place it, where it counts code points. */
import type { Interface } from "node:readline";

const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" });

const tabStop = 8;

/** Columns of the mark that readline sets before the further lines of an entry. */
const furtherLine = "| ".length;

export interface Position {
  rows: number;
  cols: number;
}

/** Where a terminal of so many columns has its cursor behind the text, from the start of its first line. */
export function positionBehind(text: string, columns: number): Position {
  let rows = 0;
  let at = 0;
  for (const { segment } of graphemes.segment(Bun.stripANSI(text))) {
    if (segment === "\n" || segment === "\r\n") {
      rows++;
      at = furtherLine;
      continue;
    }
    const width = segment === "\t" ? tabStop - (at % tabStop) : Bun.stringWidth(segment);
    // What is two columns wide does not begin in the last one.
    if (at + width > columns) {
      rows++;
      at = 0;
    }
    at += width;
  }
  // Readline counts a full line as the start of the next.
  return at === columns ? { rows: rows + 1, cols: 0 } : { rows, cols: at };
}

/** Has the line editor count so, and know its row when the window is of another width. */
export function countGraphemes(readline: Interface, screen: { columns: number; prependListener: Listen }): void {
  const editor = readline as unknown as { prevRows?: number };
  const position = (text: string) => positionBehind(text, screen.columns || 80);
  // Its own method is found by a symbol that has this description.
  const symbols = Object.getOwnPropertySymbols(Object.getPrototypeOf(Object.getPrototypeOf(editor)));
  const own = symbols.find(({ description }) => description === "_getDisplayPos");
  if (own) Object.defineProperty(editor, own, { value: position });
  // The terminal has laid the line out anew by then: it may take fewer rows, and those above are not the editor's.
  screen.prependListener("resize", () => {
    editor.prevRows = readline.getCursorPos().rows;
  });
}

type Listen = (event: "resize", listener: () => void) => unknown;
