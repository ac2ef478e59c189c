/** JSON as Python's json module reads it: any int, NaN and Infinity, the last of equal keys. */
import { MAX_DIGITS } from "../python-numbers";
import type { Mapping, Value } from "./value";

export interface JsonOptions {
  /** Refuses control characters inside strings; true by default. */
  strict?: boolean;
}

/** Python stops at its recursion limit; here the stack is safe. */
const MAX_DEPTH = 900;

const SPACE = /[ \t\n\r]*/y;
const NUMBER = /(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const CONSTANT = /null|true|false|NaN|-?Infinity/y;
const STRICT_TEXT = /[^"\\\p{Cc}]*[\x7f-\x9f]*/uy;
const PLAIN_TEXT = /[^"\\]*/y;
const ESCAPE = /\\(?:(["\\/bfnrt])|u([0-9a-fA-F]{4}))/y;

const CONSTANTS: Record<string, Value> = {
  null: null,
  true: true,
  false: false,
  NaN,
  Infinity,
  "-Infinity": -Infinity,
};
const ESCAPES: Record<string, string> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

/** json.loads(text), or undefined where it raises. */
export function parseJson(text: string, options?: JsonOptions): Value | undefined {
  const reader = new Reader(text, 0, options);
  reader.take(SPACE);
  const value = reader.value();
  reader.take(SPACE);
  return reader.at === text.length ? value : undefined;
}

/** The one JSON value that begins at an index, and where it ends; undefined where there is none. */
export function decodeJson(text: string, at: number): { value: Value; end: number } | undefined {
  const reader = new Reader(text, at);
  const value = reader.value();
  return value === undefined ? undefined : { value, end: reader.at };
}

class Reader {
  #depth = 0;
  readonly #text: RegExp;

  constructor(
    private readonly source: string,
    public at: number,
    { strict = true }: JsonOptions = {},
  ) {
    this.#text = strict ? STRICT_TEXT : PLAIN_TEXT;
  }

  /** What a sticky pattern matches here, or null; moves behind it. */
  take(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.source);
    if (match) this.at += match[0].length;
    return match;
  }

  value(): Value | undefined {
    switch (this.source[this.at]) {
      case '"':
        return this.#string();
      case "[":
        return this.#nested(() => this.#array());
      case "{":
        return this.#nested(() => this.#object());
    }
    const constant = this.take(CONSTANT);
    if (constant) return CONSTANTS[constant[0]];
    const number = this.take(NUMBER);
    if (!number) return undefined;
    const [whole, digits, fraction, exponent] = number;
    if (fraction !== undefined || exponent !== undefined) return Number(whole);
    return digits!.length > MAX_DIGITS ? undefined : BigInt(digits!);
  }

  #nested(read: () => Value | undefined): Value | undefined {
    if (this.#depth === MAX_DEPTH) return undefined;
    this.#depth++;
    this.at++;
    const value = read();
    this.#depth--;
    return value;
  }

  #array(): Value[] | undefined {
    const items: Value[] = [];
    this.take(SPACE);
    if (this.#skip("]")) return items;
    while (true) {
      const item = this.value();
      if (item === undefined) return undefined;
      items.push(item);
      this.take(SPACE);
      if (this.#skip("]")) return items;
      if (!this.#skip(",")) return undefined;
      this.take(SPACE);
    }
  }

  #object(): Mapping | undefined {
    const mapping: Mapping = new Map();
    this.take(SPACE);
    if (this.#skip("}")) return mapping;
    while (true) {
      const key = this.#string();
      this.take(SPACE);
      if (key === undefined || !this.#skip(":")) return undefined;
      this.take(SPACE);
      const value = this.value();
      if (value === undefined) return undefined;
      mapping.set(key, value);
      this.take(SPACE);
      if (this.#skip("}")) return mapping;
      if (!this.#skip(",")) return undefined;
      this.take(SPACE);
    }
  }

  #string(): string | undefined {
    if (!this.#skip('"')) return undefined;
    const parts: string[] = [];
    while (!this.#skip('"')) {
      const from = this.at;
      parts.push(this.take(this.#text)?.[0] ?? "");
      const escaped = this.take(ESCAPE);
      if (escaped) parts.push(escaped[1] ? (ESCAPES[escaped[1]] ?? escaped[1]) : hexCharacter(escaped[2]!));
      if (this.at === from) return undefined;
    }
    return parts.join("");
  }

  #skip(character: string): boolean {
    if (this.source[this.at] !== character) return false;
    this.at++;
    return true;
  }
}

function hexCharacter(digits: string): string {
  return String.fromCharCode(Number.parseInt(digits, 16));
}
