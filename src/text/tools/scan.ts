/** Searching a text for what stands between marks, in time that grows with its length alone. */

export interface Span {
  /** The text between the marks. */
  inner: string;
  /** Where the opening mark begins, and the closing one ends. */
  from: number;
  to: number;
}

/** The stretches from an opening mark to the next closing one, as a lazy pattern finds them, one behind another. */
export function* spans(text: string, open: string, close: string): Generator<Span, void> {
  let at = 0;
  while (true) {
    const from = text.indexOf(open, at);
    const end = from < 0 ? -1 : text.indexOf(close, from + open.length);
    if (end < 0) return;
    at = end + close.length;
    yield { inner: text.slice(from + open.length, end), from, to: at };
  }
}

/** Unicode's White_Space, which `\s` is to Python; JavaScript's own differs by two characters. */
export const SPACE = "\\p{White_Space}";
/** What `\w` is to Python's regex library, for use inside brackets. */
export const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Join_Control}\\p{Pc}";

const SPACES = new RegExp(`${SPACE}*`, "uy");

/** The index behind the white space at an index. */
export function skipSpace(text: string, at: number): number {
  SPACES.lastIndex = at;
  return at + SPACES.exec(text)![0].length;
}

const WORD_CHARACTER = new RegExp(`^[${WORD}]$`, "u");

/** The index where the run of word characters begins that ends before `to`, not before `from`. */
export function wordStart(text: string, from: number, to: number, others = ""): number {
  let at = to;
  while (at > from) {
    const isPair = at - 2 >= from && /[\ud800-\udbff]/.test(text[at - 2]!) && /[\udc00-\udfff]/.test(text[at - 1]!);
    const start = at - (isPair ? 2 : 1);
    const character = text.slice(start, at);
    if (!WORD_CHARACTER.test(character) && !others.includes(character)) break;
    at = start;
  }
  return at;
}

const ONE_SPACE = new RegExp(`^${SPACE}$`, "u");

/** The index where the white space begins that ends before `to`; all of it stands in the basic plane. */
export function spaceStart(text: string, to = text.length): number {
  let at = to;
  while (at > 0 && ONE_SPACE.test(text[at - 1]!)) at--;
  return at;
}
