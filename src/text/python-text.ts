/** Texts as Python strips and prints them. */

const WHITESPACE = new Set(
  "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000",
);

/** Takes whitespace, or any of the given characters, off an end or both. */
export function strip(text: string, characters?: unknown, side: "start" | "end" | "both" = "both"): string {
  const stripped = typeof characters === "string" ? new Set(characters) : WHITESPACE;
  let [from, to] = [0, text.length];
  while (side !== "end" && from < to) {
    const character = String.fromCodePoint(text.codePointAt(from)!);
    if (!stripped.has(character)) break;
    from += character.length;
  }
  while (side !== "start" && from < to) {
    const character = [...text.slice(Math.max(from, to - 2), to)].at(-1)!;
    if (!stripped.has(character)) break;
    to -= character.length;
  }
  return text.slice(from, to);
}

/** repr() of a text: single quotes unless only double ones avoid an escape. */
export function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/[\\\n\r\t]|['"]|[\p{C}\p{Z}]/gu, (character) => {
    if (character === " ") return character;
    if (character === '"' || character === "'") return character === mark ? `\\${character}` : character;
    const short = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
    if (short) return short;
    const hex = character.codePointAt(0)!.toString(16);
    if (hex.length <= 2) return `\\x${hex.padStart(2, "0")}`;
    return hex.length <= 4 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
  });
  return mark + escaped + mark;
}
