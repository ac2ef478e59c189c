/** Words of a command line → values of a command's flags. Strict: what is not understood is an error, never ignored. */
import minimist from "minimist";
import { ExitCode, UserError } from "../errors";
import { nearest } from "../nearest";
import { type Flag, type FlagTable, isBare, namedFlags, positionalFlags, spelled, type Values } from "./flags";
import { flagMeaning } from "./synonyms";

/** @throws UserError (usage) for unknown flags, missing or bad values, and words that belong to no flag */
export function parseFlags<T extends FlagTable>(words: readonly string[], table: T, command: string): Values<T> {
  const parser = new Parser(table, `mlxlm ${command} --help`);
  const { values, given } = parser.parse(words);
  givenOf.set(values, given);
  return values as Values<T>;
}

/** The words up to the first that is neither a flag nor its value, and the rest: a command with flags of its own. */
export function splitCommand(words: readonly string[], table: FlagTable): [own: string[], command: string[]] {
  const takesNone = new Set(
    Object.keys(table)
      .filter((name) => table[name]!.kind === "switch")
      .flatMap((name) => [spelled(name), ...(table[name]!.alias ?? []).map((alias) => `-${alias}`)]),
  );
  let at = 0;
  while (at < words.length && isFlag(words[at]!)) {
    const word = words[at]!;
    if (word === "--") return [words.slice(0, at), words.slice(at + 1)];
    const isShort = !word.startsWith("--") && word.length > 2;
    at += takesNone.has(word) || word.includes("=") || isShort ? 1 : 2;
  }
  return [words.slice(0, at), words.slice(at)];
}

const givenOf = new WeakMap<object, ReadonlySet<string>>();

/** Whether the flag was on the command line: its value may be its default all the same. */
export function wasGiven(values: object, name: string): boolean {
  return givenOf.get(values)?.has(name) === true;
}

/** Whether a word names a flag. Negative numbers, "-" and text with spaces ("- a list") are values. */
function isFlag(word: string): boolean {
  const name = word.split("=", 1)[0]!;
  return name.length > 1 && name.startsWith("-") && !/^-\.?\d/.test(name) && !/\s/.test(name);
}

const decimal = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

class Parser {
  /** Table names by their long spelling. */
  private readonly names: ReadonlyMap<string, string>;
  /** The table's name of what takes words that stand alone. */
  private readonly bare: string | undefined;

  constructor(
    private readonly table: FlagTable,
    private readonly help: string,
  ) {
    this.names = new Map(namedFlags(table).map((name) => [spelled(name), name]));
    this.bare = Object.keys(table).find((name) => isBare(table[name]!));
  }

  private fail(message: string, hint = `See ${this.help}`): never {
    throw new UserError(message, { code: ExitCode.usage, hint });
  }

  parse(words: readonly string[]): { values: Record<string, unknown>; given: Set<string> } {
    const switches = Object.keys(this.table).filter((name) => this.table[name]!.kind === "switch");
    const texts = Object.keys(this.table).filter((name) => !switches.includes(name));
    const given = minimist(this.canonical(words), { boolean: switches, string: ["_", ...texts] });

    const missing = Object.entries(this.table).filter(
      ([name, flag]) => "required" in flag && flag.required && given[name] === undefined,
    );
    if (missing.length > 0) this.fail(`${missing.map(([name]) => spelled(name)).join(" and ")} must be given`);

    const values: Record<string, unknown> = {};
    const present = new Set<string>();
    for (const [name, flag] of Object.entries(this.table)) {
      const raw: unknown = given[name];
      const isPresent = flag.kind === "switch" ? raw === true : raw !== undefined;
      if (isPresent) present.add(name);
      if (isPresent && flag.notYet) {
        this.fail(`${spelled(name)} is not available yet`, "It comes with a later version. Leave it out.");
      }
      values[name] = isPresent ? this.valueOf(name, flag, raw) : defaultOf(flag);
    }
    return { values, given: present };
  }

  /** The words with every flag as `--name` or `--name=value`, by its name in the table. */
  private canonical(words: readonly string[]): string[] {
    const result: string[] = [];
    const alone: string[] = [];
    const named = new Set<string>();
    let afterText = false;
    for (let i = 0; i < words.length; i++) {
      const word = words[i]!;
      if (!isFlag(word) && this.bare) {
        result.push(`--${this.bare}=${word}`);
        continue;
      }
      if (!isFlag(word)) {
        // Behind the value of a text it is more of that text, which lacks its quotes.
        if (afterText) this.stray(word);
        alone.push(word);
        continue;
      }
      const { name, attached } = this.taken(word);
      named.add(name);
      const flag = this.table[name]!;
      afterText = flag.kind === "text";
      if (flag.kind === "switch") {
        if (attached !== undefined) this.fail(`${spelled(name)} takes no value`);
        result.push(`--${name}`);
        continue;
      }
      const values = attached === undefined ? [] : [attached];
      const wanted = flag.kind === "list" ? Number.POSITIVE_INFINITY : 1;
      while (values.length < wanted && i + 1 < words.length && !isFlag(words[i + 1]!)) values.push(words[++i]!);
      if (values.length === 0) {
        this.fail(
          `${spelled(name)} needs a value`,
          `A value that looks like a flag: ${spelled(name)}=VALUE. See ${this.help}`,
        );
      }
      for (const value of values) result.push(`--${name}=${value}`);
    }
    return [...result, ...this.placed(alone, named)];
  }

  /** Words that stand alone, each with the flag that it is the value of. */
  private placed(alone: readonly string[], named: ReadonlySet<string>): string[] {
    const free = positionalFlags(this.table).filter((name) => !named.has(name));
    this.checkModels(alone, named);
    // A name of a model seldom has spaces: a single text is the prompt.
    const mayBeText = alone.length < free.length;
    return alone.map((word) => {
      const isText = mayBeText && /\s/.test(word) && free.some((name) => this.table[name]!.kind === "text");
      const at = isText ? free.findIndex((name) => this.table[name]!.kind === "text") : 0;
      const [name] = free.splice(at, 1);
      if (name !== undefined) return `--${name}=${word}`;
      return this.stray(word);
    });
  }

  /** One word too many that looks like a model's name, in a command that has a place for one. */
  private checkModels(alone: readonly string[], named: ReadonlySet<string>): void {
    const word = alone.at(-1);
    if (word === undefined || /\s/.test(word) || !Object.hasOwn(this.table, "model")) return;
    const positional = positionalFlags(this.table);
    if (positional.length === 0 && alone.length === 1 && !named.has("model") && !named.has("hfPath")) {
      this.fail(`"${word}" belongs to no flag`, `Did you mean --model ${word}? See ${this.help}`);
    }
    const models = alone.length + (named.has("model") ? 1 : 0);
    if (positional.join() === "model" && models === 2) {
      this.fail("two models are named", `One is enough: MODEL alone, or --model MODEL. See ${this.help}`);
    }
  }

  private stray(word: string): never {
    this.fail(`"${word}" belongs to no flag`, `Text with spaces needs quotes. See ${this.help}`);
  }

  /** The flag that a word names, and the value that hangs on it: `--seed=1`, `-m5`. */
  private taken(word: string): { name: string; attached?: string } {
    const equals = word.indexOf("=");
    if (equals >= 0) return { name: this.nameOf(word.slice(0, equals)), attached: word.slice(equals + 1) };
    const exact = this.byAlias(word);
    if (exact) return { name: exact };
    const short = word.startsWith("--") ? undefined : this.byAlias(word.slice(0, 2));
    if (short && this.table[short]!.kind !== "switch") return { name: short, attached: word.slice(2) };
    return { name: this.nameOf(word) };
  }

  private byAlias(spelling: string): string | undefined {
    return Object.keys(this.table).find((name) => this.table[name]!.alias?.some((alias) => `-${alias}` === spelling));
  }

  /** The table's name of a flag as it was typed: in full, by an alias, or by the start of one name only. */
  private nameOf(spelling: string): string {
    const exact = this.names.get(spelling);
    if (exact) return exact;
    const short = this.byAlias(spelling);
    if (short) return short;
    const begun =
      spelling.length > 2 && spelling.startsWith("--")
        ? [...this.names.keys()].filter((name) => name.startsWith(spelling))
        : [];
    if (begun.length === 1) return this.names.get(begun[0]!)!;
    if (begun.length > 1) this.fail(`${spelling} could be ${begun.join(", ")}`);
    const meant = flagMeaning(spelling, [...this.names.keys()]);
    const [similar] = meant ? [meant] : nearest(spelling, [...this.names.keys()], 1);
    return this.fail(`there is no flag ${spelling}`, `${similar ? `Did you mean ${similar}? ` : ""}See ${this.help}`);
  }

  private valueOf(name: string, flag: Flag, raw: unknown): unknown {
    const texts = (Array.isArray(raw) ? raw : [raw]) as string[];
    // Given twice, the last one counts.
    const text = texts.at(-1)!;
    switch (flag.kind) {
      case "switch":
        return true;
      case "list":
        return texts;
      case "truth":
        return !["false", "f"].includes(text.toLowerCase());
      case "choice":
        if (!flag.choices.includes(text))
          this.fail(`${spelled(name)} must be ${flag.choices.join(" or ")}, not "${text}"`);
        return text;
      case "json":
        return this.jsonOf(name, text);
      case "integer":
      case "number":
        return this.numberOf(name, flag, text);
      default:
        return text;
    }
  }

  private jsonOf(name: string, text: string): unknown {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      this.fail(
        `${spelled(name)} must be JSON, not ${text}`,
        `For example ${spelled(name)} '{"enable_thinking": false}'`,
      );
    }
    if (typeof value !== "object" || value === null || Array.isArray(value))
      this.fail(`${spelled(name)} must be a JSON object`);
    return value;
  }

  private numberOf(
    name: string,
    { kind, min, max }: Extract<Flag, { kind: "integer" | "number" }>,
    text: string,
  ): number {
    const value = decimal.test(text) ? Number(text) : Number.NaN;
    if (!Number.isFinite(value) || (kind === "integer" && !Number.isSafeInteger(value))) {
      this.fail(`${spelled(name)} must be ${kind === "integer" ? "a whole number" : "a number"}, not "${text}"`);
    }
    if (min !== undefined && value < min) this.fail(`${spelled(name)} must be at least ${min}, not ${text}`);
    if (max !== undefined && value > max) this.fail(`${spelled(name)} must be at most ${max}, not ${text}`);
    return value;
  }
}

function defaultOf(flag: Flag): unknown {
  if (flag.kind === "switch") return false;
  if (flag.kind === "list") return [];
  return "default" in flag ? flag.default : undefined;
}
