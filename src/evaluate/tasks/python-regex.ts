/**
 * Regular expressions as Python's `re` reads them, as JavaScript's: classes of Unicode, anchors, inline flags, named
 * groups, escapes. Searches as findall and sub have them.
 */
import { UserError } from "../../errors";
import { goesBackWithoutEnd, type PatternFacts, patternFacts } from "../../text/pattern-cost";

const wordSet = "\\p{L}\\p{N}_";
const word = `[${wordSet}]`;
/** What Python's `\s` matches: of JavaScript's, the byte order mark is none. */
const spaceSet = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

const classes: Record<string, [inSet: string, alone: string]> = {
  d: ["\\p{Nd}", "\\p{Nd}"],
  D: ["\\P{Nd}", "\\P{Nd}"],
  w: [wordSet, word],
  s: [spaceSet, `[${spaceSet}]`],
};

/** Negations, which a set cannot hold beside other members. */
const negations: Record<string, string> = { W: `[^${wordSet}]`, S: `[^${spaceSet}]` };

const boundary = `(?:(?<=${word})(?!${word})|(?<!${word})(?=${word}))`;
const inside = `(?:(?<=${word})(?=${word})|(?<!${word})(?!${word}))`;
const start = "(?<![\\s\\S])";
const end = "(?![\\s\\S])";

const controls: Record<string, string> = { a: "\\x07", f: "\\f", n: "\\n", r: "\\r", t: "\\t", v: "\\v" };

const special = /[\\^$.*+?()[\]{}|/]/;
const literal = (character: string) => (special.test(character) ? `\\${character}` : character);

/** Far longer than patterns are. */
const longest = 20_000;

class Translator {
  #at = 0;
  #groups = 0;
  readonly #names = new Set<string>();
  flags = { i: false, m: false, s: false, x: false };

  constructor(private readonly source: string) {}

  translate(): string {
    const global = /^\(\?([aiLmsux]+)\)/.exec(this.source);
    if (global) {
      this.#setFlags(global[1]!);
      this.#at = global[0].length;
    }
    let out = "";
    while (this.#at < this.source.length) out += this.#next();
    return out;
  }

  #setFlags(letters: string): void {
    for (const letter of letters) {
      if (letter === "a" || letter === "L") throw new Error(`the flag (?${letter}) is not known`);
      if (letter in this.flags) this.flags[letter as "i"] = true;
    }
  }

  #next(): string {
    const character = String.fromCodePoint(this.source.codePointAt(this.#at)!);
    this.#at += character.length;
    switch (character) {
      case "\\":
        return this.#escape();
      case "[":
        return this.#set();
      case "(":
        return this.#group();
      case "{":
        return this.#braces();
      case "*":
      case "+":
      case "?":
        if (this.source[this.#at] === "+") throw new Error(`"${character}+" is possessive, which mlxlm does not know`);
        return character;
      case ".":
        return this.flags.s ? "[\\s\\S]" : "[^\\n]";
      case "^":
        return this.flags.m ? `(?:${start}|(?<=\\n))` : start;
      case "$":
        return this.flags.m ? `(?=\\n|${end})` : `(?=\\n?${end})`;
      case ")":
      case "|":
        return character;
      case "#":
        if (!this.flags.x) return character;
        this.#at = (this.source.indexOf("\n", this.#at) + 1 || this.source.length + 1) - 1;
        return "";
      default:
        return this.flags.x && /\s/.test(character) ? "" : literal(character);
    }
  }

  /** A repetition, or braces that only stand for themselves. */
  #braces(): string {
    const bounds = /^(\d*)(,(\d*))?\}(\+?)/.exec(this.source.slice(this.#at));
    if (!bounds || bounds[0] === "}" || (bounds[1] === "" && bounds[2] === undefined)) return "\\{";
    if (bounds[4]) throw new Error(`"${bounds[0]}" is possessive, which mlxlm does not know`);
    this.#at += bounds[0].length;
    if (bounds[2] === undefined) return `{${bounds[1]}}`;
    return `{${bounds[1] || 0},${bounds[3]}}`;
  }

  #group(): string {
    const rest = this.source.slice(this.#at);
    const [all, name] = /^\?P<([A-Za-z_]\w*)>/.exec(rest) ?? [];
    if (all) {
      this.#at += all.length;
      this.#groups++;
      this.#names.add(name!);
      return `(?<${name}>`;
    }
    const back = /^\?P=([A-Za-z_]\w*)\)/.exec(rest);
    if (back) {
      if (!this.#names.has(back[1]!)) throw new Error(`the group name ${back[1]} is not known`);
      this.#at += back[0].length;
      return `\\k<${back[1]}>`;
    }
    const comment = /^\?#[^)]*\)/.exec(rest);
    if (comment) {
      this.#at += comment[0].length;
      return "";
    }
    const flags = /^\?([aiLmsux]*)(?:-([imsx]+))?([:)])/.exec(rest);
    if (flags && (flags[1] !== "" || flags[2] !== undefined)) {
      throw new Error(`the flags (${flags[0]} stand inside the pattern; mlxlm knows them only at its beginning`);
    }
    const known = /^\?(?::|=|!|<=|<!)/.exec(rest);
    if (known) {
      this.#at += known[0].length;
      return `(${known[0]}`;
    }
    if (rest.startsWith("?")) throw new Error(`"(${rest.slice(0, 3)}" is not known`);
    this.#groups++;
    return "(";
  }

  #escape(): string {
    const character = String.fromCodePoint(this.source.codePointAt(this.#at) ?? 0);
    if (this.#at >= this.source.length) throw new Error("it ends with a backslash");
    if (/[1-9]/.test(character)) {
      const digits = /^\d{1,2}/.exec(this.source.slice(this.#at))![0];
      if (Number(digits) > this.#groups) throw new Error(`there is no group ${digits}`);
      this.#at += digits.length;
      // A digit that follows must not become a part of the number.
      return `\\${digits}(?:)`;
    }
    this.#at += character.length;
    switch (character) {
      case "A":
        return start;
      case "Z":
        return end;
      case "b":
        return boundary;
      case "B":
        return inside;
    }
    return classes[character]?.[1] ?? negations[character] ?? this.#character(character);
  }

  /** An escape that stands for one character. */
  #character(character: string): string {
    const control = controls[character];
    if (control) return control;
    const width = { x: 2, u: 4, U: 8 }[character];
    if (width !== undefined) {
      const digits = this.source.slice(this.#at, this.#at + width);
      if (digits.length < width || !/^[0-9a-fA-F]+$/.test(digits))
        throw new Error(`the escape \\${character}${digits} is cut`);
      this.#at += width;
      return `\\u{${digits}}`;
    }
    if (character === "0") {
      const digits = /^[0-7]{0,2}/.exec(this.source.slice(this.#at))![0];
      this.#at += digits.length;
      return `\\u{${Number.parseInt(`0${digits}`, 8).toString(16)}}`;
    }
    if (/[A-Za-z]/.test(character)) throw new Error(`the escape \\${character} is not known`);
    return literal(character);
  }

  #set(): string {
    const isNegated = this.source[this.#at] === "^";
    if (isNegated) this.#at++;
    let members = "";
    const others: string[] = [];
    for (let first = true; ; first = false) {
      if (this.#at >= this.source.length) throw new Error("a set [ is not closed");
      const character = String.fromCodePoint(this.source.codePointAt(this.#at)!);
      this.#at += character.length;
      if (character === "]" && !first) break;
      if (character !== "\\") {
        members += /[\\\]^[-]/.test(character) && !this.#isRange(character) ? `\\${character}` : character;
        continue;
      }
      const escaped = String.fromCodePoint(this.source.codePointAt(this.#at) ?? 0);
      this.#at += escaped.length;
      if (negations[escaped]) others.push(negations[escaped]);
      else if (escaped === "b") members += "\\x08";
      else if (escaped === "-") members += "\\-";
      else members += classes[escaped]?.[0] ?? this.#character(escaped);
    }
    const set = members === "" ? [] : [`[${members}]`];
    const all = [...set, ...others];
    if (isNegated) return others.length === 0 ? `[^${members}]` : `(?:(?!${all.join("|")})[\\s\\S])`;
    return all.length === 1 ? all[0]! : `(?:${all.join("|")})`;
  }

  /** Whether a minus stands between two characters, which makes it a range; at either end it is itself. */
  #isRange(character: string): boolean {
    if (character !== "-") return false;
    const before = this.source.slice(0, this.#at - 1);
    const after = this.source[this.#at];
    return (
      after !== "]" &&
      after !== undefined &&
      !/(?:\[\^?|\\[dDwWsS])$/.test(before) &&
      !/^\\[dDwWsS]/.test(this.source.slice(this.#at))
    );
  }
}

/** Steps back that take some tenths of a second: below it, a text is searched as a whole. */
const fewSteps = 1e8;

/** Steps back from one place of a text, which nothing can interrupt. */
const mostSteps = 1e9;

/** Milliseconds that one text may take. */
const longestSearch = 2000;

export class PythonRegex {
  readonly #regex: RegExp;
  readonly #facts: PatternFacts | null;

  /**
   * @param owner what it belongs to, for messages
   * @throws UserError for a pattern that Python would refuse too, or that JavaScript cannot express
   */
  constructor(
    private readonly pattern: string,
    private readonly owner: string,
  ) {
    try {
      if (pattern.length > longest) throw new Error("it is too long");
      // References back take no choice of their own.
      const shape = pattern.replaceAll("(?P<", "(?<").replace(/\(\?P=\w+\)|\\[1-9]\d?/g, "(?:)");
      if (goesBackWithoutEnd(shape)) throw new Error("it can go back without end");
      const facts = patternFacts(shape);
      this.#facts = "problem" in facts ? null : facts;
      const translator = new Translator(pattern);
      const source = translator.translate();
      this.#regex = new RegExp(source, translator.flags.i ? "giu" : "gu");
    } catch (cause) {
      throw new UserError(
        `${owner}: the pattern ${JSON.stringify(pattern)} cannot be used: ${(cause as Error).message}`,
        {
          hint: "Write it in another way.",
          cause,
        },
      );
    }
  }

  /**
   * All matches in a text.
   * @throws UserError where that takes too long, as for a response that the pattern goes back in again and again
   */
  *#matches(text: string): Iterable<RegExpExecArray> {
    const steps = this.#facts?.stepsAt(text.length) ?? text.length;
    if (text.length * steps <= fewSteps) {
      yield* text.matchAll(this.#regex);
      return;
    }
    if (this.#facts && this.#facts.stepsAt(longestRunIn(text, this.#facts.sets)) > mostSteps) throw this.#tooLong(text);
    // From one place at a time, with a look at the clock between.
    const here = new RegExp(this.#regex.source, this.#regex.flags.replace("g", "y"));
    const began = performance.now();
    for (let at = 0; at <= text.length; ) {
      if (performance.now() - began > longestSearch) throw this.#tooLong(text);
      here.lastIndex = at;
      const match = here.exec(text);
      if (match) yield match;
      at = match && match[0] !== "" ? at + match[0].length : at + ((text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1);
    }
  }

  #tooLong(text: string): UserError {
    const shown = JSON.stringify(this.pattern.length > 80 ? `${this.pattern.slice(0, 80)}…` : this.pattern);
    return new UserError(`${this.owner}: the pattern ${shown} takes too long on a text of ${text.length} characters`, {
      hint: "Write it with fewer loops, or have shorter answers: max_gen_toks.",
    });
  }

  /** re.findall: the matches, or what their group holds; of several groups a list each. */
  findall(text: string): (string | string[])[] {
    return Array.from(this.#matches(text), ([all, ...groups]) => {
      if (groups.length === 0) return all;
      return groups.length === 1 ? (groups[0] ?? "") : groups.map((group) => group ?? "");
    });
  }

  /** re.search's groups: the whole match first. */
  search(text: string): (string | undefined)[] | null {
    for (const match of this.#matches(text)) return match;
    return null;
  }

  /** re.split, for patterns without groups that match no empty text. */
  split(text: string): string[] {
    const parts: string[] = [];
    let at = 0;
    for (const match of this.#matches(text)) {
      parts.push(text.slice(at, match.index));
      at = match.index + match[0].length;
    }
    return [...parts, text.slice(at)];
  }

  /** re.sub, with `\1` and `\g<name>` in the replacement; `count` 0: all. */
  sub(replacement: string, text: string, count = 0): string {
    let left = count === 0 ? Number.POSITIVE_INFINITY : count;
    let out = "";
    let at = 0;
    for (const match of this.#matches(text)) {
      if (left-- <= 0) break;
      out += text.slice(at, match.index) + expanded(replacement, match);
      at = match.index + match[0].length;
    }
    return out + text.slice(at);
  }
}

/** A replacement with what the groups of a match hold. */
function expanded(replacement: string, match: RegExpExecArray): string {
  return replacement.replace(/\\(?:g<(\w+)>|(\d{1,2})|(.))/gs, (_, name?: string, digits?: string, other?: string) => {
    if (other !== undefined) return escapes[other] ?? (other === "\\" ? "\\" : `\\${other}`);
    const number = digits ?? (/^\d+$/.test(name!) ? name : undefined);
    return (number === undefined ? match.groups?.[name!] : match[Number(number)]) ?? "";
  });
}

/** The longest run of characters of one of the sets; all of the text where one takes any character. */
function longestRunIn(text: string, sets: PatternFacts["sets"]): number {
  if (sets.has(null)) return text.length;
  let longest = 0;
  for (const set of sets) {
    for (const [run] of text.matchAll(new RegExp(`[${set}]+`, "vg"))) longest = Math.max(longest, run.length);
  }
  return longest;
}

const escapes: Record<string, string> = { n: "\n", t: "\t", r: "\r", f: "\f", v: "\v", a: "\x07", b: "\b" };
