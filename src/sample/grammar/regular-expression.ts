/**
 * Regular expressions, as ECMAScript writes them, read into sets of characters, sequences and repetitions, and written
 * again as EBNF or in the few words that every reader of them understands alike.
 */

/** Characters as ranges of code points, in order and apart from each other. */
export type Characters = readonly (readonly [from: number, to: number])[];

export type Expression =
  | { type: "characters"; ranges: Characters }
  | { type: "sequence"; parts: Expression[] }
  | { type: "choice"; options: Expression[] }
  | { type: "repeat"; part: Expression; min: number; max: number };

/** What stands in a regular expression and has no counterpart in a grammar. */
export class UnsupportedExpression extends Error {}

const last = 0x10ffff;
const surrogates = [0xd800, 0xdfff] as const;
const maxDepth = 100;

/** How often a part may be repeated at most, where there is a bound. */
export const maxRepeat = 8192;

const lineEnds: Characters = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const digits: Characters = [[0x30, 0x39]];
const word: Characters = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const spaces: Characters = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const classes: Record<string, Characters> = { d: digits, w: word, s: spaces };
const controls: Record<string, number> = { t: 9, n: 10, v: 11, f: 12, r: 13, "0": 0 };

/** Ranges in order, joined where they touch, without surrogates, which no text has. */
export function normalized(ranges: Characters): Characters {
  const joined: [number, number][] = [];
  for (const [from, to] of ranges.toSorted(([a], [b]) => a - b)) {
    const before = joined.at(-1);
    if (before && from <= before[1] + 1) before[1] = Math.max(before[1], to);
    else joined.push([from, to]);
  }
  return joined.flatMap(([from, to]): [number, number][] => {
    if (to < surrogates[0] || from > surrogates[1]) return [[from, to]];
    const parts: [number, number][] = [
      [from, surrogates[0] - 1],
      [surrogates[1] + 1, to],
    ];
    return parts.filter(([a, b]) => a <= b);
  });
}

/** All characters but these. */
export function complement(ranges: Characters): Characters {
  const others: [number, number][] = [];
  let next = 0;
  for (const [from, to] of normalized(ranges)) {
    if (from > next) others.push([next, from - 1]);
    next = to + 1;
  }
  if (next <= last) others.push([next, last]);
  return normalized(others);
}

export function intersection(a: Characters, b: Characters): Characters {
  return complement([...complement(a), ...complement(b)]);
}

export const anyCharacter: Characters = complement([]);

/** An expression, and whether it is bound to the beginning and end of a text. */
export interface Pattern {
  expression: Expression;
  atStart: boolean;
  atEnd: boolean;
}

/**
 * Reads a pattern. `^` may stand at its beginning and `$` at its end, or at those of its outermost alternatives.
 * @throws UnsupportedExpression for what is not regular or not known: look-around, back references, `\b`, `\p`, flags
 * @throws SyntaxError for what is no pattern
 */
export function parsePattern(source: string): Pattern {
  // Its own engine says what is no pattern, in words that people know.
  new RegExp(source, "u");
  return new Reader(source).pattern();
}

/** Alternatives of a pattern may be bound differently: each is made as wide as its own anchors say. */
interface Alternative extends Pattern {}

class Reader {
  readonly #characters: string[];
  #at = 0;
  #depth = 0;

  constructor(source: string) {
    this.#characters = [...source];
  }

  pattern(): Pattern {
    const alternatives: Alternative[] = [];
    do alternatives.push(this.#alternative());
    while (this.#take("|"));
    if (this.#at < this.#characters.length) this.#refuse(`"${this.#peek()}"`);
    const [first] = alternatives;
    const alike = alternatives.every((one) => one.atStart === first!.atStart && one.atEnd === first!.atEnd);
    if (alike) return { ...first!, expression: choice(alternatives.map(({ expression }) => expression)) };
    return { expression: choice(alternatives.map(unbound)), atStart: true, atEnd: true };
  }

  #alternative(): Alternative {
    const atStart = this.#take("^");
    while (this.#take("^"));
    const expression = this.#sequence();
    const atEnd = this.#take("$");
    while (this.#take("$"));
    return { expression, atStart, atEnd };
  }

  #choice(): Expression {
    if (++this.#depth > maxDepth) throw new UnsupportedExpression(`more than ${maxDepth} brackets in each other`);
    const options: Expression[] = [];
    do options.push(this.#sequence());
    while (this.#take("|"));
    this.#depth--;
    return choice(options);
  }

  #sequence(): Expression {
    const parts: Expression[] = [];
    for (let next = this.#peek(); next !== undefined && !"|)$".includes(next); next = this.#peek()) {
      parts.push(this.#repeated(this.#atom()));
    }
    return parts.length === 1 ? parts[0]! : { type: "sequence", parts };
  }

  #repeated(part: Expression): Expression {
    const next = this.#peek();
    let bounds: [min: number, max: number] | null = null;
    if (next === "*") bounds = [0, Number.POSITIVE_INFINITY];
    else if (next === "+") bounds = [1, Number.POSITIVE_INFINITY];
    else if (next === "?") bounds = [0, 1];
    if (bounds) this.#at++;
    else if (next === "{") bounds = this.#bounds();
    if (!bounds) return part;
    // What is taken first matters to a search, not to which texts fit.
    this.#take("?");
    const [min, max] = bounds;
    if (min > maxRepeat || (max > maxRepeat && max !== Number.POSITIVE_INFINITY)) {
      throw new UnsupportedExpression(`a repetition of more than ${maxRepeat}`);
    }
    return { type: "repeat", part, min, max };
  }

  #bounds(): [min: number, max: number] {
    const close = this.#characters.indexOf("}", this.#at);
    const [, min, comma, max] = /^\{(\d+)(,?)(\d*)\}$/.exec(this.#characters.slice(this.#at, close + 1).join(""))!;
    this.#at = close + 1;
    if (!comma) return [Number(min), Number(min)];
    return [Number(min), max ? Number(max) : Number.POSITIVE_INFINITY];
  }

  #atom(): Expression {
    const next = this.#characters[this.#at++]!;
    switch (next) {
      case "(":
        return this.#group();
      case "[":
        return { type: "characters", ranges: this.#class() };
      case ".":
        return { type: "characters", ranges: complement(lineEnds) };
      case "^":
        throw new UnsupportedExpression('"^" behind the beginning');
      case "\\":
        return { type: "characters", ranges: this.#escape(false) };
      default:
        return { type: "characters", ranges: single(next.codePointAt(0)!) };
    }
  }

  #group(): Expression {
    if (this.#take("?")) {
      if (this.#peek() === "<" && !"=!".includes(this.#characters[this.#at + 1]!)) {
        this.#at = this.#characters.indexOf(">", this.#at) + 1;
      } else if (!this.#take(":")) this.#refuse(`"(?${this.#characters.slice(this.#at, this.#at + 2).join("")}"`);
    }
    const inside = this.#choice();
    if (this.#peek() === "$") throw new UnsupportedExpression('"$" inside of brackets');
    this.#at++;
    return inside;
  }

  /** What stands between square brackets, the first of which is read. */
  #class(): Characters {
    const isNegated = this.#take("^");
    const ranges: (readonly [number, number])[] = [];
    while (!this.#take("]")) {
      const from = this.#member();
      if (from.length === 1 && this.#peek() === "-" && this.#characters[this.#at + 1] !== "]") {
        this.#at++;
        const to = this.#member();
        ranges.push([from[0]![0], to.at(-1)![1]]);
      } else ranges.push(...from);
    }
    return isNegated ? complement(ranges) : normalized(ranges);
  }

  #member(): Characters {
    const next = this.#characters[this.#at++]!;
    return next === "\\" ? this.#escape(true) : single(next.codePointAt(0)!);
  }

  #escape(inClass: boolean): Characters {
    const next = this.#characters[this.#at++]!;
    const named = classes[next.toLowerCase()];
    if (named) return next === next.toLowerCase() ? named : complement(named);
    if (inClass && next === "b") return single(8);
    if (/[bBkpP1-9]/.test(next)) this.#refuse(`"\\${next}"`);
    const control = controls[next];
    if (control !== undefined) return single(control);
    if (next === "c") return single(this.#characters[this.#at++]!.codePointAt(0)! % 32);
    if (next === "x") return single(this.#hex(2));
    if (next === "u") return single(this.#unicode());
    return single(next.codePointAt(0)!);
  }

  #unicode(): number {
    if (this.#take("{")) {
      const code = this.#hex(this.#characters.indexOf("}", this.#at) - this.#at);
      this.#at++;
      return code;
    }
    const high = this.#hex(4);
    const isPair = high >= 0xd800 && high < 0xdc00 && this.#characters.slice(this.#at, this.#at + 2).join("") === "\\u";
    if (!isPair) return high;
    this.#at += 2;
    return 0x10000 + ((high - 0xd800) << 10) + (this.#hex(4) - 0xdc00);
  }

  #hex(count: number): number {
    const text = this.#characters.slice(this.#at, this.#at + count).join("");
    this.#at += count;
    return Number.parseInt(text, 16);
  }

  #peek(): string | undefined {
    return this.#characters[this.#at];
  }

  #take(character: string): boolean {
    if (this.#peek() !== character) return false;
    this.#at++;
    return true;
  }

  #refuse(what: string): never {
    throw new UnsupportedExpression(`${what} is not supported`);
  }
}

const single = (code: number): Characters => [[code, code]];

function choice(options: Expression[]): Expression {
  return options.length === 1 ? options[0]! : { type: "choice", options };
}

export const anything: Expression = {
  type: "repeat",
  part: { type: "characters", ranges: anyCharacter },
  min: 0,
  max: Number.POSITIVE_INFINITY,
};

/** What a whole text has to be, so that the pattern is found in it. */
export function unbound({ expression, atStart, atEnd }: Pattern): Expression {
  const parts = [...(atStart ? [] : [anything]), expression, ...(atEnd ? [] : [anything])];
  return parts.length === 1 ? expression : { type: "sequence", parts };
}

/**
 * The expression with these characters alone.
 * @throws UnsupportedExpression where a place has none of them
 */
export function confined(expression: Expression, allowed: Characters): Expression {
  switch (expression.type) {
    case "characters": {
      const ranges = intersection(expression.ranges, allowed);
      if (ranges.length > 0) return { type: "characters", ranges };
      throw new UnsupportedExpression("a character that a JSON string writes with a backslash is not supported");
    }
    case "sequence":
      return { type: "sequence", parts: expression.parts.map((part) => confined(part, allowed)) };
    case "choice":
      return { type: "choice", options: expression.options.map((option) => confined(option, allowed)) };
    case "repeat":
      return { ...expression, part: confined(expression.part, allowed) };
  }
}

/** How characters, groups and empty texts are written. */
interface Notation {
  characters(ranges: Characters): string;
  group(inside: string): string;
  empty: string;
  between: string;
}

function written(expression: Expression, notation: Notation): string {
  switch (expression.type) {
    case "characters":
      return notation.characters(expression.ranges);
    case "sequence":
      if (expression.parts.length === 0) return notation.empty;
      return notation.group(expression.parts.map((part) => written(part, notation)).join(notation.between));
    case "choice":
      return notation.group(
        expression.options.map((option) => written(option, notation)).join(`${notation.between}|${notation.between}`),
      );
    case "repeat": {
      const { part, min, max } = expression;
      if (max === 0) return notation.empty;
      const bound = max === Number.POSITIVE_INFINITY ? min : max;
      if (bound > longestRun) return written(inRuns(expression), notation);
      return `${notation.group(written(part, notation))}${times(min, max)}`;
    }
  }
}

/** Of longer repetitions xgrammar 0.2.9 allows tokens that reach over their end too early. */
const longestRun = 128;

/** A long repetition as a chain of short ones. */
function inRuns({ part, min, max }: Expression & { type: "repeat" }): Expression {
  const run = (from: number, to: number): Expression => ({ type: "repeat", part, min: from, max: to });
  const fixed = Array.from({ length: Math.floor(min / longestRun) }, () => run(longestRun, longestRun));
  if (max === Number.POSITIVE_INFINITY) return { type: "sequence", parts: [...fixed, run(min % longestRun, max)] };
  const rest = min % longestRun;
  /** Either it ends within a run, or the run is full and another follows. */
  const upTo = (count: number): Expression => {
    if (count <= longestRun) return run(0, count);
    const more: Expression = { type: "sequence", parts: [run(longestRun, longestRun), upTo(count - longestRun)] };
    return { type: "choice", options: [run(0, longestRun - 1), more] };
  };
  return { type: "sequence", parts: [...fixed, run(rest, rest), upTo(max - min)] };
}

function times(min: number, max: number): string {
  if (max === Number.POSITIVE_INFINITY) return min === 0 ? "*" : min === 1 ? "+" : `{${min},}`;
  if (min === 0 && max === 1) return "?";
  return min === max ? `{${min}}` : `{${min},${max}}`;
}

const isPlain = (code: number) => /[0-9A-Za-z]/.test(String.fromCodePoint(code));

/** A class of characters: `escaped` writes one that is no letter or digit. */
function classText(ranges: Characters, escaped: (code: number) => string): string {
  const one = (code: number) => (isPlain(code) ? String.fromCodePoint(code) : escaped(code));
  return `[${ranges.map(([from, to]) => (from === to ? one(from) : `${one(from)}-${one(to)}`)).join("")}]`;
}

const hex = (code: number, digits: number) => code.toString(16).padStart(digits, "0");

/** As EBNF, in xgrammar's notation. */
export function toEbnf(expression: Expression): string {
  const escaped = (code: number) => (code > 0xffff ? `\\U${hex(code, 8)}` : `\\u${hex(code, 4)}`);
  return written(expression, {
    characters: (ranges) => classText(ranges, escaped),
    group: (inside) => `(${inside})`,
    empty: '""',
    between: " ",
  });
}

/**
 * xgrammar 0.2.9 makes an automaton of a pattern in ASCII, and one that takes "b" for (?:ab+)? too. Of other patterns it
 * makes rules, which are right: a letter that never comes turns one into the other.
 */
const asRules = "(?:é){0}";

/** As a regular expression that matches whole texts. */
export function toPattern(expression: Expression): string {
  return plainPattern(expression) + asRules;
}

function plainPattern(expression: Expression): string {
  const caret = 0x5e;
  const escaped = (code: number) => (code > 0x7f ? String.fromCodePoint(code) : `\\u{${hex(code, 1)}}`);
  return written(expression, {
    characters: (ranges) => {
      // xgrammar unescapes a class before it reads it: there, a "^" in front would turn it round.
      if (ranges[0]?.[0] !== caret) return classText(ranges, escaped);
      const [, to] = ranges[0];
      const others = [...(to > caret ? [[caret + 1, to] as const] : []), ...ranges.slice(1)];
      return others.length === 0 ? "\\^" : `(?:\\^|${classText(others, escaped)})`;
    },
    group: (inside) => `(?:${inside})`,
    empty: "(?:)",
    between: "",
  });
}
