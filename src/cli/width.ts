/** How wide a terminal is, and text laid out for it. */
import { isatty } from "node:tty";

/** Columns of a terminal that does not tell, and of text that goes elsewhere. */
export const usualColumns = 80;

/** Narrower terminals are treated as if they were so wide. */
const leastColumns = 20;

/** Columns of what is behind the descriptor: 1 stdout, 2 stderr. */
export function columnsOf(descriptor: 1 | 2): number {
  const stream = descriptor === 1 ? process.stdout : process.stderr;
  const columns = isatty(descriptor) && stream.columns > 0 ? stream.columns : usualColumns;
  return Math.max(leastColumns, columns);
}

/**
 * Lines of at most so many columns, broken between words; a word that is longer has a line of its own. Lines that are
 * broken keep their indentation, and lines that fit stay as they are.
 */
export function wrapped(text: string, columns: number): string[] {
  return text.split("\n").flatMap((line) => (Bun.stringWidth(line) <= columns ? [line] : broken(line, columns)));
}

function broken(text: string, columns: number): string[] {
  const indent = /^ */.exec(text)![0].slice(0, Math.floor(columns / 2));
  const lines: string[] = [];
  let line = indent;
  let width = indent.length;
  for (const [, spaces, word] of text.trim().matchAll(/( *)([^ ]+)/g)) {
    const wide = Bun.stringWidth(word!);
    if (width > indent.length && width + spaces!.length + wide > columns) {
      lines.push(line);
      line = indent + word;
      width = indent.length + wide;
      continue;
    }
    line += spaces! + word;
    width += spaces!.length + wide;
  }
  return [...lines, line];
}
