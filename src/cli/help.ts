/** Help pages, from the flag tables. */
import { allowedWords, listedVariables, type Variable } from "../environment";
import type { Command } from "./command";
import { type Flag, type FlagTable, globalFlags, spelled } from "./flags";
import { wrapped } from "./width";

/** Longer lines are hard to read. */
const mostColumns = 100;

/** On narrower pages a meaning stands below its name. */
const leastForTwo = 64;

/** Where meanings begin, on wide pages and on narrow ones. */
const beside = 34;
const below = 6;

export interface Listed {
  name: string;
  summary: string;
  available: boolean;
}

/** The page of `mlxlm --help`. */
export function overview(commands: readonly Listed[], version: string, columns: number): string {
  const available = commands.filter((command) => command.available);
  const later = commands.filter((command) => !command.available).map(({ name }) => name);
  const page = new Page(columns);
  page.text(`mlxlm ${version}: language models on your own machine`);
  page.gap();
  page.example("mlxlm chat demo");
  page.example('mlxlm generate demo "What is 27 + 58?"');
  page.example("mlxlm generate ./my-model < question.txt");
  page.gap();
  page.text("Commands");
  for (const { name, summary } of available) page.entry(name, summary);
  page.gap();
  page.text("Beside them");
  page.entry("completion SHELL", "print the completions of bash, zsh or fish");
  page.gap();
  page.text("Not available yet");
  page.text(later.join(", "), 2);
  page.gap();
  page.text("Flags");
  page.entry("--help, -h", "show this help, or a command's: mlxlm help generate");
  page.entry("--version", "print the version");
  page.gap();
  page.text("Environment variables");
  for (const [name, variable] of listedVariables()) {
    if (variable.from === "mlxlm") page.entry(name, described(variable));
  }
  return page.end();
}

function described(variable: Variable): string {
  const allowed = allowedWords(variable);
  return `${variable.meaning}${allowed === "" ? "" : `; ${allowed}`} (${variable.standard})`;
}

/** The page of `mlxlm COMMAND --help`. */
export function commandHelp({ name, summary, examples, flags }: Command, columns: number): string {
  const page = new Page(columns);
  const entries = (table: FlagTable) => {
    for (const [key, flag] of Object.entries(table)) page.entry(signature(key, flag), explained(flag));
  };
  page.text(`mlxlm ${name}: ${summary}`);
  page.gap();
  for (const example of examples) page.example(example);
  page.gap();
  page.text("Flags");
  entries(Object.fromEntries(Object.entries(flags).filter(([key]) => !(key in globalFlags))));
  page.gap();
  page.text("Flags of every command");
  entries(globalFlags);
  return page.end();
}

function signature(name: string, flag: Flag): string {
  if (flag.kind === "list" && flag.bare) return flag.placeholder;
  const spellings = [spelled(name), ...(flag.alias ?? []).map((alias) => `-${alias}`)].join(", ");
  if (flag.kind === "switch") return spellings;
  return `${spellings} ${flag.kind === "choice" ? flag.choices.join("|") : flag.placeholder}`;
}

function explained(flag: Flag): string {
  const standard = "default" in flag && flag.default !== undefined ? ` (${String(flag.default)})` : "";
  const needed = "required" in flag && flag.required ? " [required]" : "";
  const alone = "positional" in flag && flag.positional ? "; may stand without its name" : "";
  return `${flag.description}${alone}${standard}${needed}${flag.notYet ? " [not available yet]" : ""}`;
}

/** A help page while it is laid out for so many columns. */
class Page {
  readonly #lines: string[] = [];
  readonly #columns: number;

  constructor(columns: number) {
    this.#columns = Math.min(columns, mostColumns);
  }

  gap(): void {
    this.#lines.push("");
  }

  text(text: string, indent = 0): void {
    for (const line of wrapped(text, this.#columns - indent)) this.#lines.push(" ".repeat(indent) + line);
  }

  /** A command line; one that is too long stays one for the shell. */
  example(line: string): void {
    if (line.length <= this.#columns) {
      this.#lines.push(line);
      return;
    }
    const continued = " \\";
    const indent = "    ";
    const room = this.#columns - indent.length - continued.length;
    // Between flags, where that is enough.
    const parts = line.split(/ (?=[-<>])/).flatMap((part) => (part.length > room ? wrapped(part, room) : [part]));
    const lines = [parts[0]!];
    for (const part of parts.slice(1)) {
      if (lines.at(-1)!.length + 1 + part.length <= room) lines[lines.length - 1] += ` ${part}`;
      else lines.push(part);
    }
    this.#lines.push(
      ...lines.map((part, i) => `${i > 0 ? indent : ""}${part}${i < lines.length - 1 ? continued : ""}`),
    );
  }

  /** A name, and what it means beside it; below it where it is long, or the page narrow. */
  entry(name: string, meaning: string): void {
    if (this.#columns < leastForTwo) {
      const [head, ...more] = wrapped(name, this.#columns - below);
      this.text(head!, 2);
      for (const line of more) this.text(line, below - 2);
      this.text(meaning, below);
      return;
    }
    const lines = wrapped(meaning, this.#columns - beside);
    const head = `  ${name}`;
    if (head.length + 2 > beside) this.#lines.push(head);
    else this.#lines.push(head.padEnd(beside) + lines.shift()!);
    for (const line of lines) this.#lines.push(" ".repeat(beside) + line);
  }

  end(): string {
    return `${this.#lines.join("\n")}\n`;
  }
}
