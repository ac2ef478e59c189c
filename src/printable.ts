/**
 * Text out of files, hubs and models, made harmless for a terminal: what would steer it is shown instead of sent. In a
 * pipe the bytes go through as they are, so callers ask first where the text goes.
 */

/** Control characters, and what turns the order of what follows around: by that a name can pose as another. */
const steering = /[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu;

/** Colours and weights, which our own messages are written with. */
const colour = new RegExp(`(${"\u001b"}\\[[0-9;]*m)`);

export interface PrintableOptions {
  /** Leaves colours as they are: for lines that we have painted. */
  colours?: boolean;
}

/**
 * The text with tabs and line ends, every other control character as its escape: ESC is `\x1b`, a bidirectional override
 * `\u202e`. The carriage return of a line end is dropped; one alone would write over the line.
 */
export function printable(text: string, { colours = false }: PrintableOptions = {}): string {
  if (text.search(steering) < 0) return text;
  if (!colours) return escaped(text);
  return text
    .split(colour)
    .map((part, i) => (i % 2 === 1 ? part : escaped(part)))
    .join("");
}

/** A name on one line: line ends and tabs are escaped too. */
export function printableName(name: string): string {
  return printable(name).replace(/[\t\n]/g, (character) => (character === "\t" ? "\\t" : "\\n"));
}

function escaped(text: string): string {
  return text.replace(/\r(?=\n|$)/g, "").replace(steering, (character) => {
    if (character === "\n" || character === "\t") return character;
    const code = character.charCodeAt(0);
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}
