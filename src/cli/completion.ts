/** Shell completions, from the flag tables. */
import type { Command } from "./command";
import { namedFlags, spelled } from "./flags";

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

const flagsOf = ({ flags }: Command) =>
  namedFlags(flags)
    .filter((name) => !flags[name]!.notYet)
    .map(spelled);

/** A script that the shell sources. */
export function completion(shell: Shell, commands: readonly Command[]): string {
  const names = commands.map(({ name }) => name).join(" ");
  if (shell === "fish") {
    const lines = commands.flatMap((command) => [
      `complete -c mlxlm -n __fish_use_subcommand -a ${command.name} -d "${command.summary}"`,
      ...namedFlags(command.flags)
        .filter((name) => !command.flags[name]!.notYet)
        .map((name) => {
          const flag = command.flags[name]!;
          const value = flag.kind === "switch" ? "" : flag.kind === "path" ? " -r -F" : " -x";
          return `complete -c mlxlm -n "__fish_seen_subcommand_from ${command.name}" -l ${spelled(name).slice(2)}${value} -d "${flag.description.replaceAll('"', '\\"')}"`;
        }),
    ]);
    return `${lines.join("\n")}\n`;
  }
  const cases = commands.map((command) => `    ${command.name}) words="${flagsOf(command).join(" ")}" ;;`).join("\n");
  const bash = `_mlxlm() {
  local words="${names}"
  case "\${COMP_WORDS[1]}" in
${cases}
  esac
  [ "$COMP_CWORD" -eq 1 ] && words="${names}"
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
  [ \${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _mlxlm mlxlm
`;
  return shell === "zsh" ? `autoload -U +X bashcompinit && bashcompinit\n${bash}` : bash;
}
