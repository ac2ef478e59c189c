/** Completions of zsh, by its own functions: meanings stand beside the words. */
import {
  type CompletedCommand,
  type CompletedFlag,
  type CompletionSource,
  completedCommand,
  listModels,
  shells,
  type Words,
} from "./words";

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** Text within a spec, where brackets and colons have a meaning. */
const plain = (text: string) => text.replaceAll(/[\\[\]:]/g, (letter) => `\\${letter}`);

function action(words: Words): string {
  if (words === "models") return "_mlxlm_models";
  if (words === "files") return "_files";
  return words === "anything" ? " " : `(${words.join(" ")})`;
}

function specs({ long, short, description, value, many }: CompletedFlag): string[] {
  const message = `[${plain(description)}]`;
  const argument = value === null ? "" : `:value:${action(value)}`;
  return [long, ...short].map((name) => {
    const others = [long, ...short].filter((one) => one !== name);
    const excluded = others.length > 0 && !many ? `(${others.join(" ")})` : "";
    return quoted(`${many ? "*" : excluded}${name}${message}${argument}`);
  });
}

function branch(command: CompletedCommand): string {
  const { name, flags, first, alone } = command;
  const words = first.length > 0 ? [quoted(`1:word:(${first.join(" ")})`)] : [];
  const lines = [...flags.flatMap(specs), ...words, quoted(`*:word:${action(alone)}`)];
  return `    ${name})\n      _arguments \\\n        ${lines.join(" \\\n        ")} ;;`;
}

export function zsh({ commands, beside, topics }: CompletionSource): string {
  const all = [...commands, ...beside, { name: "help", summary: "show the help of a command or a topic" }];
  const described = all.map(({ name, summary }) => quoted(`${plain(name)}:${summary}`)).join("\n      ");
  const helped = [...all.map(({ name }) => name).filter((name) => name !== "help"), ...topics];
  return `#compdef mlxlm

_mlxlm_models() {
  local -a models
  models=(\${(f)"$(${listModels})"})
  compadd -a models
  _files
}

_mlxlm() {
  local -a commands
  if (( CURRENT == 2 )); then
    commands=(
      ${described}
    )
    _describe -t commands command commands
    compadd -- --help --version
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
    completion) compadd -- ${shells.join(" ")} ;;
    help) compadd -- ${helped.join(" ")} ;;
    man) _files -/ ;;
${commands.map((command) => branch(completedCommand(command))).join("\n")}
    *) _files ;;
  esac
}

# Loaded from fpath, or sourced.
if [ "$funcstack[1]" = "_mlxlm" ]; then _mlxlm "$@"; else compdef _mlxlm mlxlm; fi
`;
}
