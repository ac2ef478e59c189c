/** Completions of fish. */
import { type CompletedFlag, type CompletionSource, completedCommand, listModels, shells, type Words } from "./words";

const quoted = (text: string) => `"${text.replaceAll(/["\\$]/g, (letter) => `\\${letter}`)}"`;

/** The options of `complete` for a flag's value. */
function value(words: Words | null): string {
  if (words === null) return "";
  if (words === "files") return " -r -F";
  if (words === "models") return ` -r -F -a "(${listModels})"`;
  return words === "anything" ? " -x" : ` -x -a "${words.join(" ")}"`;
}

const first = "-n __fish_use_subcommand";
const within = (name: string) => `-n "__fish_seen_subcommand_from ${name}"`;

/** Ahead of a command's first word, and behind it. */
const before = (name: string, words: readonly string[]) =>
  `-n "__fish_seen_subcommand_from ${name}; and not __fish_seen_subcommand_from ${words.join(" ")}"`;
const behind = (name: string, words: readonly string[]) =>
  words.length === 0
    ? within(name)
    : `-n "__fish_seen_subcommand_from ${name}; and __fish_seen_subcommand_from ${words.join(" ")}"`;

function flagLine(command: string, { long, short, description, value: words }: CompletedFlag): string {
  // A short form of several letters is an old-style option.
  const shorts = short.map((name) => (name.length === 2 ? ` -s ${name.slice(1)}` : ` -o ${name.slice(1)}`)).join("");
  return `complete -c mlxlm ${within(command)} -l ${long.slice(2)}${shorts}${value(words)} -d ${quoted(description)}`;
}

export function fish({ commands, beside, topics }: CompletionSource): string {
  const lines = commands
    .map(completedCommand)
    .flatMap(({ name, summary, flags, first: words, alone }) => [
      `complete -c mlxlm ${first} -f -a ${name} -d ${quoted(summary)}`,
      ...(words.length > 0 ? [`complete -c mlxlm ${before(name, words)} -f -a "${words.join(" ")}"`] : []),
      ...(alone === "models" ? [`complete -c mlxlm ${behind(name, words)} -a "(${listModels})"`] : []),
      ...flags.map((flag) => flagLine(name, flag)),
    ]);
  const names = [...commands, ...beside].map(({ name }) => name);
  const besides = beside.map(({ name, summary }) => `complete -c mlxlm ${first} -f -a ${name} -d ${quoted(summary)}`);
  return `${[
    ...lines,
    ...besides,
    `complete -c mlxlm ${within("completion")} -f -a "${shells.join(" ")}"`,
    `complete -c mlxlm ${first} -f -a help -d "show the help of a command or a topic"`,
    `complete -c mlxlm ${within("help")} -f -a "${[...names, ...topics].join(" ")}"`,
  ].join("\n")}\n`;
}
