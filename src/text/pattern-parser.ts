/**
 * The regular expressions of tokenizer.json (Oniguruma's, as Ruby has them), parsed as far as their cost asks: what
 * consumes characters, what repeats, what may fail.
 */

/** A set of characters as a class of JavaScript's with the flag `v`, or null where it can't be written as one. */
export type CharacterSet = string | null;

export type Pattern =
  | { kind: "set"; set: CharacterSet }
  /** An anchor, or a look around: takes no character, may fail. */
  | { kind: "look"; body: Pattern | null }
  | { kind: "group"; body: Pattern; atomic: boolean }
  | { kind: "either"; options: Pattern[] }
  | { kind: "sequence"; items: Pattern[] }
  | { kind: "loop"; body: Pattern; least: number; most: number; possessive: boolean };

/** Longer than any tokenizer's. */
const longest = 20_000;
const deepest = 50;

/** Oniguruma's names of sets, as JavaScript has them. */
const escapes: Record<string, string> = {
  s: "\\s",
  S: "\\S",
  d: "\\p{Nd}",
  D: "\\P{Nd}",
  w: "[\\p{L}\\p{M}\\p{N}\\p{Pc}]",
  W: "[^\\p{L}\\p{M}\\p{N}\\p{Pc}]",
  h: "[0-9a-fA-F]",
  H: "[^0-9a-fA-F]",
};
const controls: Record<string, number> = { t: 9, n: 10, v: 11, f: 12, r: 13, a: 7, e: 27 };
const anchors = new Set("bBAzZG");
const everything = "[\\s\\S]";

const literal = (code: number) => `\\u{${code.toString(16)}}`;

/** @throws SyntaxError for a pattern that is broken, or uses what no tokenizer does (back references, calls, conditions) */
export function parsePattern(source: string): Pattern {
  if (source.length > longest) throw new SyntaxError(`it is longer than ${longest} characters`);
  return new Parser(source).whole();
}

class Parser {
  #at = 0;
  #depth = 0;
  /** Where letters stand for both cases, or blanks for nothing, a set is not what it says. */
  #exact = true;

  constructor(private readonly source: string) {}

  whole(): Pattern {
    const parsed = this.#either();
    if (this.#at < this.source.length) throw new SyntaxError("a parenthesis is closed that was not opened");
    return parsed;
  }

  #peek(text: string): boolean {
    return this.source.startsWith(text, this.#at);
  }

  #take(text: string): boolean {
    if (!this.#peek(text)) return false;
    this.#at += text.length;
    return true;
  }

  /** The next character. @throws SyntaxError at the end */
  #next(): string {
    const code = this.source.codePointAt(this.#at);
    if (code === undefined) throw new SyntaxError("it ends in the middle");
    const character = String.fromCodePoint(code);
    this.#at += character.length;
    return character;
  }

  #match(regex: RegExp): RegExpExecArray | null {
    const found = regex.exec(this.source.slice(this.#at, this.#at + 200));
    if (found) this.#at += found[0].length;
    return found;
  }

  #either(): Pattern {
    if (++this.#depth > deepest) throw new SyntaxError(`it nests deeper than ${deepest} levels`);
    const options: Pattern[] = [];
    do options.push(this.#sequence());
    while (this.#take("|"));
    this.#depth--;
    return options.length === 1 ? options[0]! : { kind: "either", options };
  }

  #sequence(): Pattern {
    const items: Pattern[] = [];
    while (this.#at < this.source.length && !this.#peek("|") && !this.#peek(")")) {
      const item = this.#atom();
      if (item) items.push(this.#repeated(item));
    }
    return { kind: "sequence", items };
  }

  #repeated(atom: Pattern): Pattern {
    let item = atom;
    for (let times = 0; ; times++) {
      const mark = this.#match(/^(?:([*+?])([+?]?)|\{(\d+)(,?)(\d*)\}(\??)|\{,(\d+)\}(\??))/);
      if (!mark) return item;
      if (times > 3) throw new SyntaxError("too many repetitions stand in a row");
      const [, sign, mood, from, comma, to, , upTo] = mark;
      const possessive = mood === "+";
      if (sign) {
        const [least, most] = sign === "*" ? [0, Infinity] : sign === "+" ? [1, Infinity] : [0, 1];
        item = { kind: "loop", body: item, least, most, possessive };
      } else {
        const least = Number(from ?? 0);
        const most = upTo !== undefined ? Number(upTo) : to ? Number(to) : comma ? Infinity : least;
        item = { kind: "loop", body: item, least, most, possessive: false };
      }
    }
  }

  #atom(): Pattern | null {
    const character = this.#next();
    switch (character) {
      case "(":
        return this.#group();
      case "[":
        return this.#one(this.#set());
      case ".":
        return { kind: "set", set: everything };
      case "^":
      case "$":
        return { kind: "look", body: null };
      case "\\":
        return this.#escaped();
      case "*":
      case "+":
      case "?":
        throw new SyntaxError(`nothing stands before "${character}"`);
      default:
        return this.#one(literal(character.codePointAt(0)!));
    }
  }

  #one(set: CharacterSet): Pattern {
    return { kind: "set", set: this.#exact ? set : null };
  }

  #group(): Pattern | null {
    if (this.#match(/^\?#[^)]*\)/)) return null;
    const flags = this.#match(/^\?([imxaDSWyu]*)(?:-([imx]+))?([:)])/);
    if (flags) {
      const before = this.#exact;
      if (flags[1] !== "" || flags[2]) this.#exact = false;
      // Flags without a colon hold to the end of the group around; there they stay for all that follows.
      if (flags[3] === ")") return null;
      const body = this.#closed();
      this.#exact = before;
      return { kind: "group", body, atomic: false };
    }
    if (this.#match(/^\?<?[=!]/)) return { kind: "look", body: this.#closed() };
    if (this.#take("?>")) return { kind: "group", body: this.#closed(), atomic: true };
    if (this.#match(/^\?(?:<[A-Za-z_]\w*>|'[A-Za-z_]\w*')/)) return this.#plainGroup();
    if (this.#peek("?") || this.#peek("*"))
      throw new SyntaxError(`"(${this.source.slice(this.#at, this.#at + 3)}" is not supported`);
    return this.#plainGroup();
  }

  #plainGroup(): Pattern {
    return { kind: "group", body: this.#closed(), atomic: false };
  }

  #closed(): Pattern {
    const body = this.#either();
    if (!this.#take(")")) throw new SyntaxError("a parenthesis is not closed");
    return body;
  }

  #escaped(): Pattern {
    const character = this.#next();
    if (anchors.has(character)) return { kind: "look", body: null };
    if (/[1-9kgKRXyYNO]/.test(character)) {
      // A line end may be two characters, a grapheme many.
      if (character === "R" || character === "X") {
        const most = character === "R" ? 2 : Infinity;
        return { kind: "loop", body: { kind: "set", set: null }, least: 1, most, possessive: true };
      }
      if (character === "N" || character === "O") return { kind: "set", set: everything };
      throw new SyntaxError(`"\\${character}" is not supported`);
    }
    return this.#one(this.#escape(character));
  }

  /** What an escape stands for, in a set or outside. */
  #escape(character: string): CharacterSet {
    if (character === "p" || character === "P") {
      const [, negated, name] = this.#match(/^\{(\^?)([^{}]*)\}/) ?? [];
      if (name === undefined) throw new SyntaxError("a property has no name");
      const isNegated = (character === "P") !== (negated === "^");
      return property(name, isNegated);
    }
    const set = escapes[character];
    if (set) return set;
    if (character === "x") {
      const [, braced, plain] = this.#match(/^(?:\{([0-9a-fA-F]{1,6})\}|([0-9a-fA-F]{1,2}))/) ?? [];
      return literal(Number.parseInt(braced ?? plain ?? "0", 16));
    }
    if (character === "u") {
      const [digits] = this.#match(/^[0-9a-fA-F]{4}/) ?? [];
      if (!digits) throw new SyntaxError("an escape \\u is cut");
      return literal(Number.parseInt(digits, 16));
    }
    if (/[0-7]/.test(character)) {
      const [more] = this.#match(/^[0-7]{0,2}/) ?? [""];
      return literal(Number.parseInt(character + more, 8));
    }
    return literal(controls[character] ?? character.codePointAt(0)!);
  }

  /** A set in brackets, whose first bracket is taken. */
  #set(): CharacterSet {
    if (++this.#depth > deepest) throw new SyntaxError(`it nests deeper than ${deepest} levels`);
    const negated = this.#take("^");
    const parts: string[][] = [[]];
    let known = true;
    const add = (member: CharacterSet) => {
      if (member === null) known = false;
      else parts.at(-1)!.push(member);
    };
    for (let first = true; first || !this.#peek("]"); first = false) {
      if (this.#take("&&")) parts.push([]);
      else if (this.#match(/^\[:\^?[a-z]+:\]/)) known = false;
      else if (this.#take("[")) add(this.#set());
      else add(this.#member());
    }
    this.#at++;
    this.#depth--;
    if (!known) return null;
    const joined = parts.map((members) => `[${members.join("")}]`);
    return `[${negated ? "^" : ""}${joined.join("&&")}]`;
  }

  /** A character, an escape, or a range. */
  #member(): CharacterSet {
    const from = this.#next();
    const start = from === "\\" ? this.#escape(this.#next()) : literal(from.codePointAt(0)!);
    if (!this.#peek("-") || this.#peek("-]") || this.#peek("-[") || !start?.startsWith("\\u{")) return start;
    this.#at++;
    const to = this.#next();
    const end = to === "\\" ? this.#escape(this.#next()) : literal(to.codePointAt(0)!);
    return end?.startsWith("\\u{") ? `${start}-${end}` : null;
  }
}

/** Properties go by more names in Oniguruma; those that JavaScript lacks are not known. */
function property(name: string, negated: boolean): CharacterSet {
  const letter = negated ? "P" : "p";
  for (const source of [`\\${letter}{${name}}`, `\\${letter}{Script=${name}}`]) {
    try {
      new RegExp(source, "v");
      return source;
    } catch {
      // The next form is tried.
    }
  }
  return null;
}
