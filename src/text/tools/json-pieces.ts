/** A JSON value that arrives in pieces, written as `dumps` writes it whole: separators, escapes, digits. */
import { parseJson } from "./json";
import { dumps } from "./value";

/** As deep as values are read whole. */
const mostDepth = 900;

type Expected = "value" | "first item" | "first key" | "key" | "colon" | "comma";

const ATOM = /[-+.0-9A-Za-z]/;

export class JsonPieces {
  /** What has been written and not been taken. */
  #out = "";
  #open: ("{" | "[")[] = [];
  #expected: Expected = "value";
  /** A string's escape, as far as it has come. */
  #escape: string | null = null;
  #isInString = false;
  #isKey = false;
  /** The first half of a character, which waits for the second. */
  #half = "";
  /** A number or a word, which ends with the character behind it. */
  #atom = "";
  #state: "open" | "whole" | "failed" = "open";

  /** Whether the value is there, or is none. */
  get state(): "open" | "whole" | "failed" {
    return this.#state;
  }

  /** What has been written since the last call. */
  take(): string {
    const out = this.#out;
    this.#out = "";
    return out;
  }

  /** Reads a character. False where it is not part of the value: it belongs to what comes behind. */
  push(character: string): boolean {
    if (this.#state !== "open") return false;
    if (this.#isInString) this.#inString(character);
    else if (this.#atom !== "" && ATOM.test(character)) this.#atom += character;
    else {
      if (this.#atom !== "") this.#endAtom();
      if (this.#state !== "open") return false;
      if (!" \t\n\r".includes(character)) this.#structure(character);
    }
    return true;
  }

  #structure(character: string): void {
    const inner = this.#open.at(-1);
    const closes = inner === "{" ? "}" : inner === "[" ? "]" : null;
    const mayClose = ["first item", "first key", "comma"].includes(this.#expected);
    if (character === closes && mayClose) {
      this.#open.pop();
      this.#out += character;
      this.#endValue();
    } else if (this.#expected === "comma" && character === ",") {
      this.#out += ", ";
      this.#expected = inner === "{" ? "key" : "value";
    } else if (this.#expected === "colon" && character === ":") {
      this.#out += ": ";
      this.#expected = "value";
    } else if (this.#expected === "key" || this.#expected === "first key") {
      if (character !== '"') this.#state = "failed";
      else this.#beginString(true);
    } else if (this.#expected === "value" || this.#expected === "first item") this.#beginValue(character);
    else this.#state = "failed";
  }

  #beginValue(character: string): void {
    if (character === '"') this.#beginString(false);
    else if (character === "{" || character === "[") {
      if (this.#open.length === mostDepth) this.#state = "failed";
      this.#open.push(character);
      this.#out += character;
      this.#expected = character === "{" ? "first key" : "first item";
    } else if (ATOM.test(character)) this.#atom = character;
    else this.#state = "failed";
  }

  #endAtom(): void {
    const value = parseJson(this.#atom);
    this.#atom = "";
    if (value === undefined) this.#state = "failed";
    else {
      this.#out += dumps(value);
      this.#endValue();
    }
  }

  #endValue(): void {
    if (this.#open.length === 0) this.#state = "whole";
    else this.#expected = "comma";
  }

  #beginString(isKey: boolean): void {
    [this.#isInString, this.#isKey] = [true, isKey];
    this.#out += '"';
  }

  #inString(character: string): void {
    if (this.#escape !== null) this.#inEscape(character);
    else if (character === "\\") this.#escape = character;
    else if (character === '"') {
      this.#write("");
      this.#out += '"';
      this.#isInString = false;
      if (this.#isKey) this.#expected = "colon";
      else this.#endValue();
    } else if (character < " ") this.#state = "failed";
    else this.#write(character);
  }

  #inEscape(character: string): void {
    const written = this.#escape + character;
    const isWhole = written.length === (written[1] === "u" ? 6 : 2);
    this.#escape = isWhole ? null : written;
    if (!isWhole) return;
    const value = parseJson(`"${written}"`);
    if (typeof value === "string") this.#write(value);
    else this.#state = "failed";
  }

  /** Writes a string's character, with the half before it. */
  #write(character: string): void {
    const text = this.#half + character;
    const endsInHalf = /[\ud800-\udbff]$/.test(text) && character !== "";
    this.#half = endsInHalf ? text.slice(-1) : "";
    this.#out += JSON.stringify(endsInHalf ? text.slice(0, -1) : text).slice(1, -1);
  }
}
