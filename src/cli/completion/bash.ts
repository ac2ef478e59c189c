/** Completions of bash. */
import {
  type CompletedCommand,
  type CompletionSource,
  completedCommand,
  listModels,
  shells,
  type Words,
} from "./words";

/** What the script does for such words. */
function assigned(words: Words): string {
  if (words === "models") return "models=1; files=1";
  if (words === "files") return "files=1";
  return words === "anything" ? "return" : `words="${words.join(" ")}"`;
}

function branch({ name, flags, first, alone }: CompletedCommand): string {
  const values = flags.flatMap(({ long, short, value }) =>
    value === null ? [] : [`        ${[long, ...short].join("|")}) ${assigned(value)} ;;`],
  );
  const other =
    first.length > 0
      ? `if [ "$COMP_CWORD" -eq 2 ]; then words="${first.join(" ")}"; else ${assigned(alone)}; fi`
      : assigned(alone);
  return `    ${name})
      flags="${flags.map(({ long }) => long).join(" ")}"
      case "$before" in
${[...values, `        *) ${other} ;;`].join("\n")}
      esac ;;`;
}

export function bash({ commands, beside, topics }: CompletionSource): string {
  const names = commands.map(({ name }) => name);
  const besides = [...beside.map(({ name }) => name), "help"];
  return `_mlxlm() {
  local IFS=$' \\t\\n' words="" flags="" models="" files=""
  local word="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD-1]}"
  COMPREPLY=()
  # --flag=value comes as three words.
  if [ "$word" = "=" ]; then word=""; elif [ "$before" = "=" ]; then before="\${COMP_WORDS[COMP_CWORD-2]}"; fi
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${[...names, ...besides].join(" ")} --help --version" -- "$word"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
    completion) words="${shells.join(" ")}" ;;
    help) words="${[...names, ...besides.filter((name) => name !== "help"), ...topics].join(" ")}" ;;
    man) files=1 ;;
${commands.map((command) => branch(completedCommand(command))).join("\n")}
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
