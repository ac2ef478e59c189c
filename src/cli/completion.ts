/** Shell completions, from the flag tables: names of flags, and values where they are known. */
import type { Command } from "./command";
import { type Flag, isBare, namedFlags, positionalFlags, spelled } from "./flags";

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

/** Prints the names of models, one a line. */
const listModels = "mlxlm completion models 2>/dev/null";

const usableFlags = ({ flags }: Command): [name: string, flag: Flag][] =>
  namedFlags(flags)
    .filter((name) => !flags[name]!.notYet)
    .map((name) => [name, flags[name]!]);

const takesModel = (flag: Flag) => "placeholder" in flag && flag.placeholder === "MODEL";

/** What a flag's value may be: words, the names of models and files, files, or anything. */
function valuesOf(flag: Flag): readonly string[] | "models" | "files" | null {
  if (flag.kind === "choice") return flag.choices;
  if (flag.kind === "truth") return ["True", "False"];
  if (takesModel(flag)) return "models";
  return flag.kind === "path" ? "files" : null;
}

/** The words that a command's first may be: `list|info|rm NAME …`. */
function subcommands({ flags }: Command): string[] {
  const bare = Object.values(flags).find(isBare);
  const [first] = bare && "placeholder" in bare ? bare.placeholder.split(" ") : [];
  return first?.includes("|") ? first.split("|") : [];
}

/** Whether words that stand alone are names of models. */
const wordsAreModels = (command: Command) =>
  subcommands(command).length > 0 || positionalFlags(command.flags).some((name) => takesModel(command.flags[name]!));

/** A script that the shell sources. */
export function completion(shell: Shell, commands: readonly Command[]): string {
  if (shell === "fish") return fish(commands);
  const script = bash(commands);
  return shell === "zsh" ? `autoload -U +X bashcompinit && bashcompinit\n${script}` : script;
}

function bash(commands: readonly Command[]): string {
  const names = commands.map(({ name }) => name).join(" ");
  const cases = commands.map((command) => {
    const flags = usableFlags(command);
    const spellings = ([name, flag]: [string, Flag]) =>
      [spelled(name), ...(flag.alias ?? []).map((alias) => `-${alias}`)].join("|");
    const values = flags.flatMap((entry) => {
      const wanted = valuesOf(entry[1]);
      if (wanted === null) return entry[1].kind === "switch" ? [] : [`        ${spellings(entry)}) return ;;`];
      if (wanted === "files") return [`        ${spellings(entry)}) files=1 ;;`];
      if (wanted === "models") return [`        ${spellings(entry)}) models=1; files=1 ;;`];
      return [`        ${spellings(entry)}) words="${wanted.join(" ")}" ;;`];
    });
    const models = wordsAreModels(command) ? "models=1; " : "";
    const first = subcommands(command).join(" ");
    const alone = `${models}files=1`;
    const other = first ? `if [ "$COMP_CWORD" -eq 2 ]; then words="${first}"; else ${alone}; fi` : alone;
    return `    ${command.name})
      flags="${flags.map(([name]) => spelled(name)).join(" ")}"
      case "$before" in
${[...values, `        *) ${other} ;;`].join("\n")}
      esac ;;`;
  });
  return `_mlxlm() {
  local IFS=$' \\t\\n' words="" flags="" models="" files=""
  local word="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD-1]}"
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${names} completion help --help --version" -- "$word"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
    completion) words="${shells.join(" ")}" ;;
    help) words="${names}" ;;
${cases.join("\n")}
  esac
  case "$word" in -*) words="$flags"; models=""; files="" ;; esac
  [ -n "$models" ] && words="$words $(${listModels})"
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  if [ -n "$files" ]; then
    IFS=$'\\n'
    COMPREPLY+=($(compgen -f -- "$word"))
    compopt -o filenames 2>/dev/null
  fi
}
complete -F _mlxlm mlxlm
`;
}

function fish(commands: readonly Command[]): string {
  const quoted = (text: string) => `"${text.replaceAll(/["\\$]/g, (letter) => `\\${letter}`)}"`;
  const lines = commands.flatMap((command) => {
    const within = `-n "__fish_seen_subcommand_from ${command.name}"`;
    const flags = usableFlags(command).map(([name, flag]) => {
      const wanted = valuesOf(flag);
      const value =
        flag.kind === "switch"
          ? ""
          : wanted === "files"
            ? " -r -F"
            : wanted === "models"
              ? ` -r -F -a "(${listModels})"`
              : wanted === null
                ? " -x"
                : ` -x -a "${wanted.join(" ")}"`;
      return `complete -c mlxlm ${within} -l ${spelled(name).slice(2)}${value} -d ${quoted(flag.description)}`;
    });
    const first = subcommands(command);
    return [
      `complete -c mlxlm -n __fish_use_subcommand -f -a ${command.name} -d ${quoted(command.summary)}`,
      ...(first.length > 0 ? [`complete -c mlxlm ${within} -a "${first.join(" ")}"`] : []),
      ...(wordsAreModels(command) ? [`complete -c mlxlm ${within} -a "(${listModels})"`] : []),
      ...flags,
    ];
  });
  const names = commands.map(({ name }) => name).join(" ");
  return `${[
    ...lines,
    `complete -c mlxlm -n __fish_use_subcommand -f -a completion -d "print the completions of a shell"`,
    `complete -c mlxlm -n "__fish_seen_subcommand_from completion" -f -a "${shells.join(" ")}"`,
    `complete -c mlxlm -n __fish_use_subcommand -f -a help -d "show a command's help"`,
    `complete -c mlxlm -n "__fish_seen_subcommand_from help" -f -a "${names}"`,
  ].join("\n")}\n`;
}
