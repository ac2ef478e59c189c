/**
 * The flag table: the only place that knows a flag. The parser, the help, completions and the types of a command's
 * values come from it.
 */

interface Common {
  /** What it does, for the help: no capital, no full stop. */
  description: string;
  /** Short forms, without dashes. */
  alias?: readonly string[];
  /** Its engine comes with a later version: using it is an error that says so. */
  notYet?: boolean;
}

export interface TextFlag extends Common {
  kind: "text" | "path";
  /** Words that stand alone are the values of such flags too, in the order of the table. */
  positional?: boolean;
  default?: string;
  /** The command cannot do without it. */
  required?: boolean;
  placeholder: string;
}

export interface NumberFlag extends Common {
  kind: "integer" | "number";
  default?: number;
  min?: number;
  max?: number;
  placeholder: string;
}

/** Present or absent. */
export interface SwitchFlag extends Common {
  kind: "switch";
}

/** Python's habit: any text but "false" and "f" is true. */
export interface TruthFlag extends Common {
  kind: "truth";
  default: boolean;
  placeholder: string;
}

export interface ChoiceFlag<T extends string = string> extends Common {
  kind: "choice";
  choices: readonly T[];
  default?: T;
}

/** One or more words. */
export interface ListFlag extends Common {
  kind: "list";
  /** It has no name on the command line: words that belong to no flag are its. */
  bare?: boolean;
  placeholder: string;
}

/** A JSON object. */
export interface JsonFlag extends Common {
  kind: "json";
  placeholder: string;
}

export type Flag = TextFlag | NumberFlag | SwitchFlag | TruthFlag | ChoiceFlag | ListFlag | JsonFlag;

/** Flags by camelCase name: `maxTokens` is `--max-tokens`. */
export type FlagTable = Readonly<Record<string, Flag>>;

type ValueOf<F extends Flag> = F extends SwitchFlag | TruthFlag
  ? boolean
  : F extends ListFlag
    ? string[]
    : F extends JsonFlag
      ? Record<string, unknown> | undefined
      : F extends ChoiceFlag<infer T>
        ? T | (F extends { default: T } ? never : undefined)
        : F extends { default: infer D }
          ? D extends number
            ? number
            : string
          : F extends { required: true }
            ? string
            : (F extends NumberFlag ? number : string) | undefined;

/** What a command gets for its flags. */
export type Values<T extends FlagTable> = { -readonly [K in keyof T]: ValueOf<T[K]> };

type Options<F> = Partial<Omit<F, "kind" | "description">>;

/** Keeps in the type what gives a flag a value in any case: a default, or that it is required. */
type With<F, O> = F &
  (O extends { default: infer D } ? { default: D } : unknown) &
  (O extends { required: true } ? { required: true } : unknown);

export const flag = {
  text: <const O extends Options<TextFlag>>(description: string, options?: O) =>
    ({ kind: "text", description, placeholder: "TEXT", ...options }) as unknown as With<TextFlag, O>,
  path: <const O extends Options<TextFlag>>(description: string, options?: O) =>
    ({ kind: "path", description, placeholder: "PATH", ...options }) as unknown as With<TextFlag, O>,
  integer: <const O extends Options<NumberFlag>>(description: string, options?: O) =>
    ({ kind: "integer", description, placeholder: "N", ...options }) as unknown as With<NumberFlag, O>,
  number: <const O extends Options<NumberFlag>>(description: string, options?: O) =>
    ({ kind: "number", description, placeholder: "X", ...options }) as unknown as With<NumberFlag, O>,
  switch: (description: string, options?: Options<SwitchFlag>): SwitchFlag => ({
    kind: "switch",
    description,
    ...options,
  }),
  truth: (description: string, options: Options<TruthFlag> & { default: boolean }): TruthFlag => ({
    kind: "truth",
    description,
    placeholder: "True|False",
    ...options,
  }),
  choice: <const T extends string>(description: string, choices: readonly T[], options?: Options<ChoiceFlag<T>>) =>
    ({ kind: "choice", description, choices, ...options }) as ChoiceFlag<T>,
  list: (description: string, options?: Options<ListFlag>): ListFlag => ({
    kind: "list",
    description,
    placeholder: "TEXT …",
    ...options,
  }),
  json: (description: string, options?: Options<JsonFlag>): JsonFlag => ({
    kind: "json",
    description,
    placeholder: "JSON",
    ...options,
  }),
};

/** Flags that every command has. */
export const globalFlags = {
  json: flag.switch("print one JSON object, or one line an event, instead of text"),
  device: flag.choice("where to compute: the GPU where there is one, unless said", ["cpu", "gpu"]),
  debug: flag.switch("show the stack of an error"),
  help: flag.switch("show this help", { alias: ["h"] }),
} satisfies FlagTable;

/** Whether a flag takes the words that stand alone. */
export const isBare = (one: Flag) => one.kind === "list" && one.bare === true;

/** The table's names of those that words which stand alone may be values of. */
export function positionalFlags(table: FlagTable): string[] {
  return Object.keys(table).filter((name) => {
    const one = table[name]!;
    return "positional" in one && one.positional === true;
  });
}

/** The table's names of those that are given by a name of their own. */
export function namedFlags(table: FlagTable): string[] {
  return Object.keys(table).filter((name) => !isBare(table[name]!));
}

/** `maxTokens` → `--max-tokens` */
export function spelled(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** GB (10⁹ bytes), as flags have them, in bytes. */
export function gigabytes(count: number | undefined): number | undefined {
  return count === undefined ? undefined : count * 1e9;
}
