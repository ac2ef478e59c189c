/** Help pages, from the flag tables. */
import { listedVariables } from "../environment";
import type { Command } from "./command";
import { type Flag, type FlagTable, globalFlags, spelled } from "./flags";
import { Page } from "./page";
import { type Topic, topics, variableInWords } from "./topics";

export interface Listed {
  name: string;
  summary: string;
}

/** Words beside the commands, as the overview lists them. */
export interface Beside {
  words: string;
  summary: string;
}

/** The page of `mlxlm --help`. */
export function overview(
  commands: readonly Listed[],
  beside: readonly Beside[],
  version: string,
  columns: number,
): string {
  const page = new Page(columns);
  page.text(`mlxlm ${version}: language models on your own machine`);
  page.gap();
  page.example("mlxlm chat demo");
  page.example('mlxlm generate demo "What is 27 + 58?"');
  page.example("mlxlm generate ./my-model < question.txt");
  page.gap();
  page.text("Commands");
  for (const { name, summary } of commands) page.entry(name, summary);
  page.gap();
  page.text("Beside them");
  for (const { words, summary } of beside) page.entry(words, summary);
  page.entry("help TOPIC", topics.map(({ name }) => name).join(", "));
  page.gap();
  page.text("Flags");
  page.entry("--help, -h", "show this help, or a command's: mlxlm help generate");
  page.entry("--version", "print the version");
  page.gap();
  page.text("Environment variables");
  for (const [name, variable] of listedVariables()) {
    if (variable.from === "mlxlm") page.entry(name, variableInWords(variable));
  }
  return page.end();
}

/** The page of `mlxlm help TOPIC`. */
export function topicHelp({ name, summary, blocks }: Topic, columns: number): string {
  const page = new Page(columns);
  page.text(`mlxlm ${name}: ${summary}`);
  for (const block of blocks) {
    page.gap();
    if (typeof block === "string") page.text(block);
    else if ("examples" in block) for (const line of block.examples) page.example(line);
    else for (const [entry, meaning] of block.entries) page.entry(entry, meaning);
  }
  return page.end();
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

/** `--max-tokens, -m N` */
export function signature(name: string, flag: Flag): string {
  if (flag.kind === "list" && flag.bare) return flag.placeholder;
  const spellings = [spelled(name), ...(flag.alias ?? []).map((alias) => `-${alias}`)].join(", ");
  if (flag.kind === "switch") return spellings;
  return `${spellings} ${flag.kind === "choice" ? flag.choices.join("|") : flag.placeholder}`;
}

/** What it does, with its default. */
export function explained(flag: Flag): string {
  const standard =
    "default" in flag && flag.default !== undefined && flag.default !== "" ? ` (${String(flag.default)})` : "";
  const needed = "required" in flag && flag.required ? " [required]" : "";
  const alone = "positional" in flag && flag.positional ? "; may stand without its name" : "";
  return `${flag.description}${alone}${standard}${needed}${flag.notYet ? " [not available yet]" : ""}`;
}
