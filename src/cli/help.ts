/** Help pages, from the flag tables. */
import { allowedWords, listedVariables, type Variable } from "../environment";
import type { Command } from "./command";
import { type Flag, type FlagTable, globalFlags, spelled } from "./flags";

/** Columns of a help page. */
const width = 90;

export interface Listed {
  name: string;
  summary: string;
  available: boolean;
}

/** The page of `mlxlm --help`. */
export function overview(commands: readonly Listed[], version: string): string {
  const available = commands.filter((command) => command.available);
  const later = commands.filter((command) => !command.available).map(({ name }) => name);
  return page(
    `mlxlm ${version}: language models on your own machine`,
    "",
    'mlxlm generate --model demo --prompt "What is 27 + 58?"',
    "mlxlm generate --model ./my-model --prompt - < question.txt",
    "",
    "Commands",
    ...available.flatMap(({ name, summary }) => entry(name, summary)),
    "",
    "Beside them",
    ...entry("completion SHELL", "print the completions of bash, zsh or fish"),
    "",
    "Not available yet",
    ...wrapped(later.join(", "), 2),
    "",
    "Flags",
    ...entry("--help, -h", "show this help, or a command's: mlxlm generate --help"),
    ...entry("--version", "print the version"),
    "",
    "Environment variables",
    ...listedVariables().flatMap(([name, variable]) => (variable.from === "mlxlm" ? described(name, variable) : [])),
  );
}

function described(name: string, variable: Variable): string[] {
  const allowed = allowedWords(variable);
  return entry(name, `${variable.meaning}${allowed === "" ? "" : `; ${allowed}`} (${variable.standard})`);
}

/** The page of `mlxlm COMMAND --help`. */
export function commandHelp({ name, summary, examples, flags }: Command): string {
  const entries = (table: FlagTable) =>
    Object.entries(table).flatMap(([key, flag]) => entry(signature(key, flag), explained(flag)));
  const own = Object.fromEntries(Object.entries(flags).filter(([key]) => !(key in globalFlags)));
  return page(
    `mlxlm ${name}: ${summary}`,
    "",
    ...examples,
    "",
    "Flags",
    ...entries(own),
    "",
    "Flags of every command",
    ...entries(globalFlags),
  );
}

function page(...lines: string[]): string {
  return `${lines.join("\n")}\n`;
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
  return `${flag.description}${standard}${needed}${flag.notYet ? " [not available yet]" : ""}`;
}

/** A name, and what it means beside it or, for a long name, below. */
function entry(name: string, meaning: string): string[] {
  const column = 34;
  const lines = wrapped(meaning, column);
  const head = `  ${name}`;
  if (head.length + 2 > column) return [head, ...lines];
  return [head.padEnd(column) + lines[0]!.trimStart(), ...lines.slice(1)];
}

function wrapped(text: string, indent: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line !== "" && indent + line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines.map((line) => " ".repeat(indent) + line);
}
