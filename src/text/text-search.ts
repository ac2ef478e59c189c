/**
 * Finding a text in another in time that grows with their lengths alone. The engine's own search compares at every
 * place, which takes the product of both for periodic texts; it is used for short ones, where that is nothing.
 */

/** Longer than what templates look for. */
const short = 32;

/** Where `part` begins in `text` at `from` or behind, or -1. */
export function indexOf(text: string, part: string, from = 0): number {
  if (part.length <= short || text.length - from < part.length) return text.indexOf(part, from);
  return search(
    text.length,
    from,
    part.length,
    (i) => text.charCodeAt(i),
    (i) => part.charCodeAt(i),
  );
}

/** Where `part` begins in `text` for the last time, or -1. */
export function lastIndexOf(text: string, part: string): number {
  if (part.length <= short || text.length < part.length) return text.lastIndexOf(part);
  const [end, partEnd] = [text.length - 1, part.length - 1];
  const place = search(
    text.length,
    0,
    part.length,
    (i) => text.charCodeAt(end - i),
    (i) => part.charCodeAt(partEnd - i),
  );
  return place < 0 ? -1 : text.length - place - part.length;
}

/** What stands between the places of `part`, which is not empty. */
export function splitAt(text: string, part: string): string[] {
  if (part.length <= short) return text.split(part);
  const pieces: string[] = [];
  let start = 0;
  for (let at = indexOf(text, part); at >= 0; at = indexOf(text, part, start)) {
    pieces.push(text.slice(start, at));
    start = at + part.length;
  }
  return [...pieces, text.slice(start)];
}

/** Knuth, Morris and Pratt's: where a comparison fails, the part is moved by what it repeats of itself. */
function search(
  length: number,
  from: number,
  partLength: number,
  textAt: (i: number) => number,
  partAt: (i: number) => number,
): number {
  const repeats = new Int32Array(new ArrayBuffer(4 * partLength));
  for (let i = 1, same = 0; i < partLength; i++) {
    while (same > 0 && partAt(i) !== partAt(same)) same = repeats[same - 1]!;
    if (partAt(i) === partAt(same)) same++;
    repeats[i] = same;
  }
  for (let i = from, same = 0; i < length; i++) {
    while (same > 0 && textAt(i) !== partAt(same)) same = repeats[same - 1]!;
    if (textAt(i) === partAt(same)) same++;
    if (same === partLength) return i - partLength + 1;
  }
  return -1;
}

/** Characters, each counted once where it takes two units. */
export function characterCount(text: string): number {
  let count = 0;
  for (let at = 0; at < text.length; count++) at += isPair(text, at) ? 2 : 1;
  return count;
}

const isPair = (text: string, i: number) =>
  (text.charCodeAt(i) & 0xfc00) === 0xd800 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00;

/** The character at an index that counts characters, from the end where it is negative. */
export function characterAt(text: string, index: number): string | undefined {
  if (index < 0) {
    let end = text.length;
    for (let left = -index - 1; left > 0 && end > 0; left--) end -= end >= 2 && isPair(text, end - 2) ? 2 : 1;
    if (end === 0) return undefined;
    return text.slice(end >= 2 && isPair(text, end - 2) ? end - 2 : end - 1, end);
  }
  let at = 0;
  for (let left = index; left > 0 && at < text.length; left--) at += isPair(text, at) ? 2 : 1;
  const code = text.codePointAt(at);
  return code === undefined ? undefined : String.fromCodePoint(code);
}
