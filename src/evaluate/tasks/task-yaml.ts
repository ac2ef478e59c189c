/** Task files: YAML 1.1 as PyYAML reads it, references to Python functions, files that include others. */
import { readFile } from "node:fs/promises";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { parseDocument, type ScalarTag } from "yaml";
import { ExitCode, UserError } from "../../errors";
import { inputFile } from "../../input-file";

/** `!function utils.process_docs`: a function of `utils.py` beside the file. */
export class PythonFunction {
  constructor(
    /** `utils.process_docs` */
    readonly name: string,
    /** Where the module is looked for. */
    readonly folder: string,
  ) {}

  /** For messages. */
  toString(): string {
    return `!function ${this.name}`;
  }
}

export type Config = Record<string, unknown>;

const scalar = (tag: string, test: RegExp, read: (text: string) => unknown): ScalarTag => ({
  tag: `tag:yaml.org,2002:${tag}`,
  default: true,
  test,
  resolve: (text) => read(text),
});

const signed = (text: string, read: (digits: string) => number) => {
  const digits = text.replaceAll("_", "").replace(/^[+-]/, "");
  return text.startsWith("-") ? -read(digits) : read(digits);
};

/** `1:30:00`, in sixties. */
const sixties = (digits: string) => digits.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);

const wholeNumber = /^[-+]?(?:0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(?::[0-5]?[0-9])+)$/;
const decimal =
  /^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$/;

/** What PyYAML takes plain scalars for. `y`, `n` and `1e5` are texts to it. */
const plainScalars: ScalarTag[] = [
  scalar("null", /^(?:~|null|Null|NULL|)$/, () => null),
  scalar("bool", /^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$/, (text) =>
    /^(?:yes|true|on)$/i.test(text),
  ),
  scalar("int", wholeNumber, (text) =>
    signed(text, (digits) => {
      if (digits.includes(":")) return sixties(digits);
      return /^0[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : Number(digits);
    }),
  ),
  scalar("float", decimal, (text) =>
    signed(text, (digits) => {
      if (/inf$/i.test(digits)) return Number.POSITIVE_INFINITY;
      if (/nan$/i.test(digits)) return Number.NaN;
      return digits.includes(":") ? sixties(digits) : Number(digits);
    }),
  ),
];

/** Far more than any task says. */
const longestFile = 16 * 2 ** 20;

/** @throws UserError where it is no mapping in YAML */
export function parseTaskYaml(text: string, path: string): Config {
  const folder = dirname(path);
  if (text.length > longestFile) throw broken(path, "it is too large for a task");
  let value: unknown;
  try {
    value = parseIndented(text, folder).toJS({ maxAliasCount: 1000 });
  } catch (error) {
    throw broken(path, (error as Error).message.split("\n")[0]!.replace(/:$/, ""), error);
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw broken(path, "a task is a mapping of keys to values");
  }
  return value as Config;
}

/** How many lines are moved before a file counts as broken. */
const mostRepairs = 500;

/** PyYAML lets a quoted text go on in lines that are not indented, against the specification: they are moved. */
function parseIndented(text: string, folder: string) {
  const first = parseWith(text, folder);
  const [error] = first.errors;
  if (!error) return first;
  const lines = text.split("\n");
  for (let n = 0, problem = error; n < mostRepairs; n++) {
    if (problem.code !== "MISSING_CHAR" || !problem.message.includes("quote")) break;
    const next = problem.linePos?.[0].line ?? lines.length;
    if (next >= lines.length) break;
    lines[next] = " ".repeat(80) + lines[next]!.trimStart();
    const again = parseWith(lines.join("\n"), folder);
    if (again.errors.length === 0) return again;
    problem = again.errors[0]!;
  }
  throw error;
}

function parseWith(text: string, folder: string) {
  const reference: ScalarTag = { tag: "!function", resolve: (name) => new PythonFunction(name, folder) };
  return parseDocument(text, {
    schema: "failsafe",
    customTags: (tags) => [...tags, ...plainScalars, reference],
    merge: true,
    uniqueKeys: false,
    logLevel: "silent",
  });
}

function broken(path: string, problem: string, cause?: unknown): UserError {
  return new UserError(`${path} is no task: ${problem}`, { hint: "Repair the file.", cause });
}

/** Reads task files, each once. */
export class TaskFiles {
  readonly #read = new Map<string, Promise<Config>>();

  /**
   * A file's keys over those of the files that it includes; of several, later ones win.
   * @throws UserError where a file is missing, is no YAML, or includes itself
   */
  async load(path: string, seen: readonly string[] = []): Promise<Config> {
    const whole = resolve(path);
    if (seen.includes(whole)) {
      throw new UserError(`${whole} includes itself, by way of ${seen.at(-1)}`, { hint: "Take one include out." });
    }
    const { include, ...own } = await this.#parsed(whole, seen.at(-1));
    let merged: Config = {};
    for (const name of include === undefined || include === null ? [] : [include].flat()) {
      if (typeof name !== "string") throw broken(whole, `include names ${JSON.stringify(name)}, which is no file`);
      const target = isAbsolute(name) ? name : join(dirname(whole), name);
      const { task_list: _, ...inherited } = await this.load(target, [...seen, whole]);
      merged = { ...merged, ...inherited };
    }
    return { ...merged, ...own };
  }

  #parsed(path: string, includer: string | undefined): Promise<Config> {
    const known = this.#read.get(path);
    if (known) return known;
    const reading = inputFile(path)
      .then(() => readFile(path, "utf8"))
      .catch((cause: NodeJS.ErrnoException) => {
        if (cause instanceof UserError) throw cause;
        throw new UserError(`${path} cannot be read${includer ? `, which ${includer} includes` : ""}: ${cause.code}`, {
          code: cause.code === "ENOENT" ? ExitCode.notFound : ExitCode.failure,
          hint: "Check the path.",
          cause,
        });
      })
      .then((text) => parseTaskYaml(text, path));
    reading.catch(() => {});
    this.#read.set(path, reading);
    return reading;
  }
}
