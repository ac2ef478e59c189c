/**
 * A strict JSON reader for foreign files. Unlike JSON.parse it refuses a key that occurs twice (two readers could take
 * different ones), bounds nesting, and gives objects as maps, so that no key is special.
 */

export interface ScanOptions {
  /** How deep objects and lists may nest. */
  deepest?: number;
  /** Values that are passed over and given as their text: paths of keys, joined by dots. */
  raw?: ReadonlySet<string>;
}

/** A value that was passed over: its text, with as many closing brackets as opening ones. */
export class RawJson {
  constructor(readonly text: string) {}
}

const quote = 0x22;
const backslash = 0x5c;

export class JsonScanner {
  private at = 0;
  private readonly path: string[] = [];
  private depth = 0;
  private readonly deepest: number;
  private readonly raw: ReadonlySet<string>;

  constructor(
    private readonly text: string,
    { deepest = 16, raw = new Set() }: ScanOptions = {},
  ) {
    this.deepest = deepest;
    this.raw = raw;
  }

  /** The whole text as one object: its entries in order. Spaces may follow. */
  object(): [string, unknown][] {
    const value = this.value();
    this.space();
    if (this.at < this.text.length) this.fail("there is more after its end");
    if (!(value instanceof Map)) this.fail("it is not an object");
    return [...(value as Map<string, unknown>)];
  }

  private fail(problem: string): never {
    throw new SyntaxError(`${problem} (at character ${this.at})`);
  }

  private space(): void {
    while (" \n\r\t".includes(this.text[this.at] ?? "x")) this.at++;
  }

  private take(symbol: string): void {
    this.space();
    if (this.text[this.at] !== symbol) this.fail(`"${symbol}" was expected`);
    this.at++;
  }

  /** Whether the next symbol is this one; takes it if so. */
  private next(symbol: string): boolean {
    this.space();
    if (this.text[this.at] !== symbol) return false;
    this.at++;
    return true;
  }

  private value(): unknown {
    this.space();
    const symbol = this.text[this.at];
    if (symbol === "{") return this.nested(() => this.map());
    if (symbol === "[") return this.nested(() => this.list());
    if (symbol === '"') return this.string();
    return this.literal();
  }

  private nested<T>(read: () => T): T {
    if (++this.depth > this.deepest) this.fail(`it nests deeper than ${this.deepest} levels`);
    const value = read();
    this.depth--;
    return value;
  }

  private map(): Map<string, unknown> {
    const entries = new Map<string, unknown>();
    this.take("{");
    if (this.next("}")) return entries;
    do {
      this.space();
      const key = this.string();
      if (entries.has(key)) this.fail(`the key "${key}" occurs twice`);
      this.take(":");
      entries.set(key, this.member(key));
    } while (this.next(","));
    this.take("}");
    return entries;
  }

  private member(key: string): unknown {
    if (this.raw.size === 0) return this.value();
    this.path.push(key);
    this.space();
    const passesOver = this.raw.has(this.path.join(".")) && /[{[]/.test(this.text[this.at] ?? "");
    const value = passesOver ? this.passOver() : this.value();
    this.path.pop();
    return value;
  }

  private list(): unknown[] {
    const items: unknown[] = [];
    this.take("[");
    if (this.next("]")) return items;
    do items.push(this.value());
    while (this.next(","));
    this.take("]");
    return items;
  }

  /** A list or an object, whatever it holds, up to the bracket that closes it. */
  private passOver(): RawJson {
    const start = this.at;
    let open = 0;
    do {
      const code = this.text.charCodeAt(this.at);
      if (code === quote) this.at = this.endOfString();
      else this.at++;
      if (code === 0x7b || code === 0x5b) open++;
      else if (code === 0x7d || code === 0x5d) open--;
      if (open > this.deepest) this.fail(`it nests deeper than ${this.deepest} levels`);
    } while (open > 0 && this.at < this.text.length);
    if (open > 0) this.fail("EOF while parsing a list or an object");
    return new RawJson(this.text.slice(start, this.at));
  }

  /** Where the text that begins here has ended. */
  private endOfString(): number {
    for (let end = this.at + 1; ; end++) {
      end = this.text.indexOf('"', end);
      if (end < 0) this.fail("a text does not end");
      let slashes = 0;
      while (this.text.charCodeAt(end - 1 - slashes) === backslash) slashes++;
      if (slashes % 2 === 0) return end + 1;
    }
  }

  private string(): string {
    const start = this.at;
    if (this.text[this.at] !== '"') this.fail("a text was expected");
    this.at = this.endOfString();
    return this.parse(start) as string;
  }

  private literal(): unknown {
    const start = this.at;
    while (this.at < this.text.length && !',]} \n\r\t:"{['.includes(this.text[this.at]!)) this.at++;
    return this.parse(start);
  }

  /** Escapes and number forms are left to JSON.parse. */
  private parse(start: number): unknown {
    try {
      return JSON.parse(this.text.slice(start, this.at));
    } catch {
      return this.fail(`${JSON.stringify(this.text.slice(start, Math.min(this.at, start + 20)))} is no value`);
    }
  }
}
