/**
 * Python's literals, as models write them instead of JSON: what ast.literal_eval reads, as far as JSON can hold it.
 * Sets, bytes, complex numbers and mappings with tuples for keys are refused.
 */
import { MAX_DIGITS } from "../python-numbers";
import type { Key, Mapping, Value } from "./value";

/** A call with keyword arguments alone: `get_time(zone="UTC")`. */
export interface Call {
  name: string;
  arguments: Mapping;
}

/** ast.literal_eval(text), or undefined for what is no literal or what JSON can't hold. */
export function parseLiteral(text: string): Value | undefined {
  try {
    return new Parser(text.replace(/^[ \t]+/, ""), PYTHON_NAMES).whole();
  } catch (error) {
    if (error instanceof Refused) return undefined;
    throw error;
  }
}

/** The calls of a list of calls, `[a(x=1), b()]`; names of constants may be JSON's. Undefined for anything else. */
export function parseCalls(text: string): Call[] | undefined {
  try {
    return new Parser(text, { ...PYTHON_NAMES, ...JSON_NAMES }).calls();
  } catch (error) {
    if (error instanceof Refused) return undefined;
    throw error;
  }
}

class Refused extends Error {}

const PYTHON_NAMES: Record<string, Value> = { True: true, False: false, None: null };
const JSON_NAMES: Record<string, Value> = { true: true, false: false, null: null };
const KEYWORDS = new Set(
  (
    "False None True and as assert async await break class continue def del elif else except finally for from " +
    "global if import in is lambda nonlocal not or pass raise return try while with yield"
  ).split(" "),
);

/** Python's tokenizer takes no more open brackets. */
const MAX_DEPTH = 200;

const BLANK = /(?:[ \t\f]|\\\n)*/y;
/** Between brackets, lines and comments may end. */
const BLANK_LINES = /[ \t\f\n]*(?:(?:\\\n|#[^\n]*)[ \t\f\n]*)*/y;
/** Before and behind the expression: whole lines of nothing. */
const EMPTY_LINES = /(?:[ \t\f]*(?:#[^\n]*)?\n)*/y;
/** An indentation is an error, but a form feed takes it back. */
const INDENTATION = /(?:[ \t]*\f)*([ \t]*)/y;
const END = /[ \t\f]*(?:#[^\n]*)?(?:\n[ \t\f]*(?:#[^\n]*)?)*$/y;
const NAME = /[\p{XIDS}_]\p{XIDC}*/uy;
const DIGITS = "[0-9](?:_?[0-9])*";
const EXPONENT = `[eE][+-]?${DIGITS}`;
const FLOAT = new RegExp(
  `(?:${DIGITS})?\\.${DIGITS}(?:${EXPONENT})?|${DIGITS}(?:\\.(?:${EXPONENT})?|${EXPONENT})`,
  "y",
);
const INTEGER = /0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|0(?:_?0)*|[1-9](?:_?[0-9])*/y;
const NUMBER_GOES_ON = /[\p{XIDC}]/uy;
const QUOTE = /([rRuU]?)("""|'''|"|')/y;
const ESCAPE =
  /\\(?:(\n)|([\\'"abfnrtv])|([0-7]{1,3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([xuUN])|)/y;
const ESCAPES: Record<string, string> = { a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" };

class Parser {
  readonly #source: string;
  #at = 0;
  #depth = 0;

  constructor(
    source: string,
    private readonly names: Record<string, Value>,
  ) {
    if (source.includes("\0")) throw new Refused();
    this.#source = source.replace(/\r\n?/g, "\n");
  }

  /** One literal, or several between commas, which are a tuple. */
  whole(): Value {
    this.#take(EMPTY_LINES);
    if (this.#take(INDENTATION)?.[1]) throw new Refused();
    const first = this.#value();
    const items = [first];
    let isTuple = false;
    while (this.#skip(",")) {
      isTuple = true;
      if (this.#ends()) break;
      items.push(this.#value());
    }
    if (!this.#ends()) throw new Refused();
    return isTuple ? items : first;
  }

  calls(): Call[] {
    const calls = this.#list("[", "]", () => this.#call());
    if (!this.#ends() || calls.length === 0) throw new Refused();
    return calls;
  }

  #call(): Call {
    const parts = [this.#name()];
    while (this.#skip(".")) parts.push(this.#name());
    const entries = this.#list("(", ")", (): [string, Value] => {
      const key = this.#name();
      if (!this.#skip("=")) throw new Refused();
      return [key, this.#value()];
    });
    return { name: parts.join("."), arguments: new Map(entries) };
  }

  #name(): string {
    this.#blank();
    const name = this.#take(NAME)?.[0].normalize("NFKC");
    if (name === undefined || KEYWORDS.has(name)) throw new Refused();
    return name;
  }

  #value(): Value {
    this.#blank();
    switch (this.#source[this.#at]) {
      case "(":
        return this.#parenthesized();
      case "[":
        return this.#list("[", "]", () => this.#value());
      case "{":
        return this.#mapping();
      case "+":
        this.#at++;
        return this.#unsigned();
      case "-":
        this.#at++;
        return -this.#unsigned();
    }
    const text = this.#strings();
    if (text !== null) return text;
    const number = this.#number();
    if (number !== null) return number;
    const name = this.#take(NAME)?.[0];
    if (name === undefined || !Object.hasOwn(this.names, name)) throw new Refused();
    return this.names[name]!;
  }

  /** A number behind a sign; only brackets may stand around it. */
  #unsigned(): bigint | number {
    this.#blank();
    if (this.#source[this.#at] !== "(") {
      const number = this.#number();
      if (number === null) throw new Refused();
      return number;
    }
    return this.#inside(() => {
      const number = this.#unsigned();
      if (!this.#skip(")")) throw new Refused();
      return number;
    });
  }

  #parenthesized(): Value {
    let commas = 0;
    const items = this.#list(
      "(",
      ")",
      () => this.#value(),
      () => commas++,
    );
    return items.length === 1 && commas === 0 ? items[0]! : items;
  }

  /** Items between brackets and commas; one comma may follow the last. */
  #list<T>(open: string, close: string, item: () => T, onComma?: () => void): T[] {
    this.#blank();
    if (this.#source[this.#at] !== open) throw new Refused();
    return this.#inside(() => {
      const items: T[] = [];
      while (!this.#skip(close)) {
        items.push(item());
        if (this.#skip(",")) onComma?.();
        else if (this.#skip(close)) break;
        else throw new Refused();
      }
      return items;
    });
  }

  #mapping(): Mapping {
    const mapping: Mapping = new Map();
    const known = new Map<Key, Key>();
    this.#list("{", "}", () => {
      const key = this.#value();
      if (!this.#skip(":") || key instanceof Object) throw new Refused();
      const same = equalKey(key);
      if (!known.has(same)) known.set(same, key);
      mapping.set(known.get(same)!, this.#value());
    });
    return mapping;
  }

  /** Reads what stands in brackets, from the opening one on. */
  #inside<T>(read: () => T): T {
    if (this.#depth === MAX_DEPTH) throw new Refused();
    this.#at++;
    this.#depth++;
    try {
      return read();
    } finally {
      this.#depth--;
    }
  }

  #number(): bigint | number | null {
    const float = this.#take(FLOAT)?.[0];
    const integer = float === undefined ? this.#take(INTEGER)?.[0] : undefined;
    if (float === undefined && integer === undefined) return null;
    if (this.#take(NUMBER_GOES_ON)) throw new Refused();
    if (float !== undefined) return Number(float.replaceAll("_", ""));
    const digits = integer!.replaceAll("_", "");
    if (digits.length > MAX_DIGITS) throw new Refused();
    const value = BigInt(digits);
    if (value.toString().length > MAX_DIGITS) throw new Refused();
    return value;
  }

  /** One string, or several side by side, which are one. Null where none begins. */
  #strings(): string | null {
    let text: string | null = null;
    while (true) {
      const quote = this.#take(QUOTE);
      if (!quote) return text;
      text = (text ?? "") + this.#string(quote[1]!.toLowerCase() === "r", quote[2]!);
      this.#blank();
    }
  }

  #string(isRaw: boolean, quote: string): string {
    const parts: string[] = [];
    while (!this.#source.startsWith(quote, this.#at)) {
      const character = this.#source[this.#at];
      if (character === undefined || (character === "\n" && quote.length === 1)) throw new Refused();
      if (character === "\\") {
        parts.push(isRaw ? this.#source.slice(this.#at, this.#at + 2) : this.#escape());
        if (isRaw) this.#at += 2;
      } else {
        parts.push(character);
        this.#at++;
      }
    }
    this.#at += quote.length;
    return parts.join("");
  }

  #escape(): string {
    const [whole, newline, short, octal, ...rest] = this.#take(ESCAPE)!;
    if (newline) return "";
    if (short) return ESCAPES[short] ?? short;
    if (octal) return String.fromCharCode(Number.parseInt(octal, 8));
    const [byte, unit, character, unfinished] = rest;
    const code = byte ?? unit ?? character;
    if (code !== undefined) {
      const point = Number.parseInt(code, 16);
      if (point > 0x10ffff) throw new Refused();
      return String.fromCodePoint(point);
    }
    if (unfinished) throw new Refused();
    return whole;
  }

  #skip(character: string): boolean {
    this.#blank();
    if (this.#source[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #blank(): void {
    this.#take(this.#depth > 0 ? BLANK_LINES : BLANK);
  }

  #ends(): boolean {
    this.#blank();
    return this.#take(END) !== null;
  }

  #take(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#source);
    if (match) this.#at += match[0].length;
    return match;
  }
}

/** What stands for all keys that are equal in Python: 1, 1.0 and True are. */
function equalKey(key: Key): Key {
  if (typeof key === "boolean") return key ? 1n : 0n;
  return typeof key === "number" && Number.isInteger(key) ? BigInt(key) : key;
}
