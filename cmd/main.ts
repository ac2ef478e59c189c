#!/usr/bin/env bun
import { basename } from "node:path";
import { version } from "../package.json";
/** The executable's entry: finds the command and hands over. Nothing heavy is loaded before a command runs. */
import type { Command } from "../src/cli/command";
import { completion, shells } from "../src/cli/completion";
import { useDevice } from "../src/cli/device";
import { commandHelp, overview } from "../src/cli/help";
import { interruptible } from "../src/cli/interrupt";
import { knownModels } from "../src/cli/known-models";
import { Output, print } from "../src/cli/output";
import { parseFlags } from "../src/cli/parse";
import { reportError } from "../src/cli/report-error";
import { commandMeaning } from "../src/cli/synonyms";
import { columnsOf } from "../src/cli/width";
import { checkEnvironment } from "../src/environment";
import { ExitCode, UserError } from "../src/errors";
import { nearest } from "../src/nearest";
import { onWarning } from "../src/warnings";
import { commands, loadedCommands } from "./commands";

async function printOverview(): Promise<void> {
  const loaded = await loadedCommands();
  const listed = Object.keys(commands).map((name) => {
    const command = loaded.find((one) => one.name === name);
    return { name, summary: command?.summary ?? "", available: command !== undefined };
  });
  print(overview(listed, version, columnsOf(1)));
}

async function printHelp(name: string): Promise<void> {
  print(commandHelp(await commandNamed(name), columnsOf(1)));
}

const completionHelp = `Usage: mlxlm completion ${shells.join("|")}

Print the completions of a shell: commands, flags, and the names of models.

  bash   mlxlm completion bash > ~/.local/share/bash-completion/completions/mlxlm
  zsh    mlxlm completion zsh >> ~/.zshrc
  fish   mlxlm completion fish > ~/.config/fish/completions/mlxlm.fish
`;

async function printCompletion(shell: string | undefined): Promise<void> {
  if (shell === "--help" || shell === "-h") return print(completionHelp);
  // What the scripts ask for as they complete the name of a model.
  if (shell === "models") return print((await knownModels()).map((name) => `${name}\n`).join(""));
  const known = shells.find((name) => name === shell);
  if (!known) {
    throw new UserError(`completion needs the name of a shell: ${shells.join(", ")}`, {
      code: ExitCode.usage,
      hint: "For example: mlxlm completion bash > ~/.local/share/bash-completion/completions/mlxlm",
    });
  }
  print(completion(known, await loadedCommands()));
}

async function commandNamed(name: string): Promise<Command> {
  if (!Object.hasOwn(commands, name)) {
    const meaning = commandMeaning(name);
    const isFlag = name.startsWith("-");
    const known = isFlag ? ["--help", "--version"] : Object.keys(commands);
    const [similar] = /^-v$/i.test(name) ? ["--version"] : nearest(name, known, 1);
    throw new UserError(isFlag ? `there is no flag ${name}` : `there is no command "${name}"`, {
      code: ExitCode.usage,
      hint: meaning ?? `${similar ? `Did you mean ${similar}? ` : ""}See mlxlm --help`,
    });
  }
  const load = commands[name];
  if (!load) {
    throw new UserError(`"${name}" is not available yet`, {
      code: ExitCode.usage,
      hint: "See mlxlm --help for what is.",
    });
  }
  return (await load()).default;
}

async function main([name, ...words]: string[]): Promise<void> {
  if (name === undefined || name === "--help" || name === "-h") return printOverview();
  if (name === "help" && words[0] === "completion") return print(completionHelp);
  if (name === "help") return words[0] === undefined ? printOverview() : printHelp(words[0]);
  if (name === "--version") return print(`${version}\n`);
  if (name === "completion") return printCompletion(words[0]);

  const command = await commandNamed(name);
  if (words.includes("--help") || words.includes("-h")) return print(commandHelp(command, columnsOf(1)));
  const flags = parseFlags(words, command.flags, command.name);
  if (flags.help) return print(commandHelp(command, columnsOf(1)));
  report.json = flags.json === true;
  report.debug = flags.debug === true;
  const out = new Output(flags.json === true);
  onWarning((line) => out.warn(line));
  for (const problem of checkEnvironment()) out.warn(problem);
  if (command.computes && flags.device) await useDevice(flags.device as "cpu" | "gpu");
  await command.run({
    flags,
    out,
    signal: interruptible({ isAnnounced: command.hasLongSteps === true && !report.json }),
  });
}

/** The command of a link by which the program was started: `mlxlm.generate`, and mlx-lm's `mlx_lm.generate`. */
function ownCommand(): string[] {
  const [, name] = /^mlx_?lm\.(\w+)$/.exec(basename(process.argv0)) ?? [];
  return name === undefined ? [] : [name];
}

const words = [...ownCommand(), ...process.argv.slice(2)];

/** How errors are printed; known for sure once the flags are understood. */
const report = { json: words.includes("--json"), debug: words.includes("--debug") };

try {
  await main(words);
} catch (error) {
  process.exitCode = reportError(error, report);
}
// Worker threads of MLX need no goodbye, and must not hold the process.
process.exit();
