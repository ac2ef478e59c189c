/** shlex.split: words as a POSIX shell cuts them. Undefined where a quotation or an escape has no end. */
export function splitWords(text: string): string[] | undefined {
  const words: string[] = [];
  let word: string | null = null;
  for (let at = 0; at < text.length; at++) {
    const character = text[at]!;
    if (" \t\r\n".includes(character)) {
      if (word !== null) words.push(word);
      word = null;
    } else if (character === "'" || character === '"') {
      const quoted = quotation(text, at);
      if (!quoted) return undefined;
      word = (word ?? "") + quoted.text;
      at = quoted.last;
    } else if (character === "\\") {
      at++;
      if (at === text.length) return undefined;
      word = (word ?? "") + text[at];
    } else {
      word = (word ?? "") + character;
    }
  }
  if (word !== null) words.push(word);
  return words;
}

/** Between double quotes a backslash escapes them and itself; between single ones it is itself. */
function quotation(text: string, from: number): { text: string; last: number } | null {
  const quote = text[from]!;
  const parts: string[] = [];
  for (let at = from + 1; at < text.length; at++) {
    const character = text[at]!;
    if (character === quote) return { text: parts.join(""), last: at };
    const next = text[at + 1];
    if (quote === '"' && character === "\\" && (next === quote || next === "\\")) {
      parts.push(next);
      at++;
    } else {
      parts.push(character);
    }
  }
  return null;
}
