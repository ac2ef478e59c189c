/** Man pages, from the flag tables and the topics of help. */

import { listedVariables } from "../environment";
import type { Command } from "./command";
import { type Flag, type FlagTable, globalFlags, isBare, spelled } from "./flags";
import { explained } from "./help";
import { type Block, exitCodes, type Topic, topics, variableInWords } from "./topics";

/** What the other pages say of the program. */
export interface ManSource {
  version: string;
  /** When the pages were made: 2026-11-29. */
  date: string;
  commands: readonly Command[];
  /** Words that are no command of their own file: `completion SHELL`. */
  builtIns: readonly { words: string; summary: string; help: string }[];
}

/** The pages by the names of their files. */
export function manPages({ version, date, commands, builtIns }: ManSource): Map<string, string> {
  const pages = new Map<string, string>();
  const add = (name: string, section: 1 | 7, lines: string[]) =>
    pages.set(
      `${name}.${section}`,
      `${[`.TH "${name.toUpperCase()}" "${section}" "${date}" "mlxlm ${version}" "mlxlm manual"`, ...lines].join("\n")}\n`,
    );
  add("mlxlm", 1, overview(commands, builtIns));
  for (const command of commands) add(`mlxlm-${command.name}`, 1, commandPage(command));
  for (const topic of topics) add(`mlxlm-${topic.name}`, 7, topicPage(topic));
  return pages;
}

function overview(commands: readonly Command[], builtIns: ManSource["builtIns"]): string[] {
  return [
    ...named("mlxlm", "language models on your own machine"),
    ".SH SYNOPSIS",
    "\\fBmlxlm\\fR \\fICOMMAND\\fR [\\fIflags\\fR]",
    ".SH DESCRIPTION",
    text(
      "mlxlm runs, fine-tunes and quantizes language models with MLX. It has the commands and flags of mlx-lm, without Python.",
    ),
    ".SH EXAMPLES",
    ...examples([
      "mlxlm chat demo",
      'mlxlm generate demo "What is 27 + 58?"',
      "mlxlm generate ./my-model < question.txt",
    ]),
    ".SH COMMANDS",
    ...commands.flatMap(({ name, summary }) => entry(bold(`mlxlm-${name}`).concat("(1)"), summary)),
    ...builtIns.flatMap(({ words, summary }) => entry(bold(`mlxlm ${words}`), summary)),
    ".SH ENVIRONMENT",
    ...listedVariables()
      .filter(([, { from }]) => from === "mlxlm")
      .flatMap(([name, variable]) => entry(bold(name), variableInWords(variable))),
    ...exitStatus(),
    ".SH SEE ALSO",
    topics.map(({ name }) => `${bold(`mlxlm-${name}`)}(7)`).join(",\n"),
  ];
}

function commandPage({ name, summary, examples: lines, flags }: Command): string[] {
  const own = Object.fromEntries(Object.entries(flags).filter(([key]) => !(key in globalFlags)));
  const alone = Object.entries(own).filter(([, flag]) => isBare(flag) || ("positional" in flag && flag.positional));
  const words = alone.map(([key, flag]) =>
    italic(isBare(flag) && "placeholder" in flag ? flag.placeholder : key.toUpperCase()),
  );
  return [
    ...named(`mlxlm-${name}`, summary),
    ".SH SYNOPSIS",
    [bold(`mlxlm ${name}`), ...words.map((word) => `[${word}]`), `[${italic("flags")}]`].join(" "),
    ".SH EXAMPLES",
    ...examples(lines),
    ".SH OPTIONS",
    ...options(own),
    ".SS Options of every command",
    ...options(globalFlags),
    ...exitStatus(),
    ".SH SEE ALSO",
    `${bold("mlxlm")}(1)`,
  ];
}

function topicPage({ name, summary, blocks }: Topic): string[] {
  return [
    ...named(`mlxlm-${name}`, summary),
    ".SH DESCRIPTION",
    ...blocks.flatMap(block),
    ".SH SEE ALSO",
    `${bold("mlxlm")}(1)`,
  ];
}

function block(one: Block, index: number): string[] {
  if (typeof one === "string") return index === 0 ? [text(one)] : [".PP", text(one)];
  if ("examples" in one) return [".PP", ...examples(one.examples)];
  return one.entries.flatMap(([name, meaning]) => entry(bold(name), meaning));
}

const named = (name: string, summary: string) => [".SH NAME", `${escaped(name)} \\- ${text(summary)}`];

const exitStatus = () => [".SH EXIT STATUS", ...exitCodes.flatMap(([code, meaning]) => entry(bold(code), meaning))];

const options = (flags: FlagTable) =>
  Object.entries(flags).flatMap(([key, flag]) => entry(option(key, flag), explained(flag)));

function option(key: string, flag: Flag): string {
  if (isBare(flag) && "placeholder" in flag) return italic(flag.placeholder);
  const spellings = [spelled(key), ...(flag.alias ?? []).map((alias) => `-${alias}`)].map(bold).join(", ");
  if (flag.kind === "switch") return spellings;
  return `${spellings} ${italic(flag.kind === "choice" ? flag.choices.join("|") : flag.placeholder)}`;
}

const entry = (name: string, meaning: string) => [".TP", name, text(meaning)];

const examples = (lines: readonly string[]) => [".nf", ...lines.map((line) => text(line)), ".fi"];

const bold = (word: string) => `\\fB${escaped(word)}\\fR`;
const italic = (word: string) => `\\fI${escaped(word)}\\fR`;

/** Text within a line. */
function escaped(words: string): string {
  return words
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll(
      /[^\x20-\x7e]/gu,
      (letter) => `\\[u${letter.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}]`,
    );
}

/** A whole line: one that begins with a full stop or an apostrophe would be a request. */
const text = (words: string) => escaped(words).replace(/^(?=[.'])/, "\\&");
