/** What describes the program itself: help by topic, completions, man pages. These words take no flags but --help. */
import { version } from "../package.json";
import type { Command } from "../src/cli/command";
import { completion, shells } from "../src/cli/completion";
import { topicHelp } from "../src/cli/help";
import { knownModels } from "../src/cli/known-models";
import { print } from "../src/cli/output";
import { topicNamed, topics } from "../src/cli/topics";
import { columnsOf } from "../src/cli/width";
import { ExitCode, UserError } from "../src/errors";

export interface BuiltIn {
  /** How it is typed, for lists. */
  words: string;
  summary: string;
  help: string;
  run(word: string | undefined, commands: () => Promise<Command[]>): Promise<void>;
}

export const builtIns: Readonly<Record<string, BuiltIn>> = {
  completion: {
    words: "completion SHELL",
    summary: "print the completions of bash, zsh or fish",
    help: `Usage: mlxlm completion ${shells.join("|")}

Print the completions of a shell: commands, flags, and their values: words, files, the names of models.

  bash   mlxlm completion bash > ~/.local/share/bash-completion/completions/mlxlm
  zsh    mlxlm completion zsh > ~/.zfunc/_mlxlm        (a folder of fpath)
  fish   mlxlm completion fish > ~/.config/fish/completions/mlxlm.fish
`,
    async run(shell, commands) {
      // What the scripts ask for as they complete the name of a model.
      if (shell === "models") return print((await knownModels()).map((name) => `${name}\n`).join(""));
      const known = shells.find((name) => name === shell);
      if (!known) {
        throw new UserError(`completion needs the name of a shell: ${shells.join(", ")}`, {
          code: ExitCode.usage,
          hint: "For example: mlxlm completion bash > ~/.local/share/bash-completion/completions/mlxlm",
        });
      }
      const beside = Object.entries(builtIns).map(([name, { summary }]) => ({ name, summary }));
      print(completion(known, { commands: await commands(), beside, topics: topicNames }));
    },
  },
  man: {
    words: "man FOLDER",
    summary: "write man pages into a folder",
    help: `Usage: mlxlm man FOLDER

Write the man pages of mlxlm, its commands and its topics: mlxlm.1, mlxlm-generate.1, mlxlm-environment.7 and so on.

  mlxlm man pages && man ./pages/mlxlm-generate.1
`,
    async run(folder, commands) {
      if (folder === undefined) {
        throw new UserError("man needs a folder to write to", {
          code: ExitCode.usage,
          hint: "For example: mlxlm man ~/.local/share/man/man1",
        });
      }
      const { writeManPages } = await import("../src/cli/man-files");
      const date = new Date().toISOString().slice(0, 10);
      const source = { version, date, commands: await commands(), builtIns: Object.values(builtIns) };
      print((await writeManPages(folder, source)).map((path) => `${path}\n`).join(""));
    },
  },
};

/** The page of a topic; undefined for a word that is none. */
export function topicPage(word: string): string | undefined {
  const topic = topicNamed(word.replaceAll("_", "-"));
  return topic && topicHelp(topic, columnsOf(1));
}

export const topicNames: readonly string[] = topics.map(({ name }) => name);
