/**
 * A strict JSON reader for headers of foreign files. Unlike JSON.parse it refuses a key that occurs twice (two readers
 * could take different ones), bounds nesting, and gives objects as maps, so that no key is special.
 */

const deepest = 16;

export class JsonScanner {
  private at = 0;
  private depth = 0;

  constructor(private readonly text: string) {}

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
    if (++this.depth > deepest) this.fail(`it nests deeper than ${deepest} levels`);
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
      entries.set(key, this.value());
    } while (this.next(","));
    this.take("}");
    return entries;
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

  private string(): string {
    const start = this.at;
    if (this.text[this.at] !== '"') this.fail("a text was expected");
    for (this.at++; this.text[this.at] !== '"'; this.at++) {
      if (this.at >= this.text.length) this.fail("a text does not end");
      if (this.text[this.at] === "\\") this.at++;
    }
    this.at++;
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
