#!/usr/bin/env bun
import { basename } from "node:path";
import { version } from "../package.json";
/** The executable's entry: finds the command and hands over. Nothing heavy is loaded before a command runs. */
import type { Command } from "../src/cli/command";
import { useDevice } from "../src/cli/device";
import { nameGgufFile } from "../src/cli/gguf-file";
import { joinGroup, leaveGroup } from "../src/cli/group";
import { commandHelp, overview } from "../src/cli/help";
import { interruptible } from "../src/cli/interrupt";
import { Output, print } from "../src/cli/output";
import { parseFlags, splitCommand } from "../src/cli/parse";
import { reportError } from "../src/cli/report-error";
import { commandMeaning } from "../src/cli/synonyms";
import { columnsOf } from "../src/cli/width";
import { checkEnvironment } from "../src/environment";
import { ExitCode, UserError } from "../src/errors";
import { isLaunched, isLead } from "../src/mlx/group-environment";
import { nearest } from "../src/nearest";
import { onWarning } from "../src/warnings";
import { builtIns, topicNames, topicPage } from "./built-ins";
import { commands, loadedCommands } from "./commands";

async function printOverview(): Promise<void> {
  print(overview(await loadedCommands(), Object.values(builtIns), version, columnsOf(1)));
}

/** The help of a command, of a word beside them, or of a topic. */
async function printHelp(name: string): Promise<void> {
  const known = Object.hasOwn(builtIns, name) ? builtIns[name]!.help : topicPage(name);
  print(known ?? commandHelp(await commandNamed(name, topicNames), columnsOf(1)));
}

/** @param others what else may have been meant @throws UserError (usage) where there is no such command */
async function commandNamed(name: string, others: readonly string[] = []): Promise<Command> {
  if (!Object.hasOwn(commands, name)) {
    const meaning = commandMeaning(name);
    const isFlag = name.startsWith("-");
    const known = isFlag ? ["--help", "--version"] : [...Object.keys(commands), ...Object.keys(builtIns), ...others];
    const [similar] = /^-v$/i.test(name) ? ["--version"] : nearest(name, known, 1);
    throw new UserError(isFlag ? `there is no flag ${name}` : `there is no command "${name}"`, {
      code: ExitCode.usage,
      hint: meaning ?? `${similar ? `Did you mean ${similar}? ` : ""}See mlxlm --help`,
    });
  }
  return (await commands[name]!()).default;
}

async function main([name, ...words]: string[]): Promise<void> {
  if (name === undefined || name === "--help" || name === "-h") return printOverview();
  if (name === "help") return words[0] === undefined ? printOverview() : printHelp(words[0]);
  if (name === "--version") return print(`${version}\n`);
  if (Object.hasOwn(builtIns, name)) {
    const { help, run } = builtIns[name]!;
    return words.some((word) => word === "--help" || word === "-h") ? print(help) : run(words[0], loadedCommands);
  }

  const command = await commandNamed(name);
  const [own, wrapped] = command.wraps ? splitCommand(words, command.flags) : [words, []];
  const help = () => {
    if (isLead()) print(commandHelp(command, columnsOf(1)));
  };
  if (own.includes("--help") || own.includes("-h")) return help();
  const flags = parseFlags(own, command.flags, command.name);
  if (command.wraps) flags.command = wrapped;
  if (flags.help) return help();
  report.json = flags.json === true;
  report.debug = flags.debug === true;
  const out = new Output(flags.json === true, { isSilent: !isLead() });
  onWarning((line) => out.warn(line));
  if (!command.diagnoses) for (const problem of checkEnvironment()) out.warn(problem);
  if (command.computes && flags.device) await useDevice(flags.device as "cpu" | "gpu");
  await nameGgufFile(flags);
  if (isLaunched() && !command.wraps) await joinGroup(command, words);
  await command.run({
    flags,
    out,
    signal: interruptible({ isAnnounced: command.hasLongSteps === true && !report.json }),
  });
  if (isLaunched() && !command.wraps) await leaveGroup();
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
  process.exitCode = reportError(error, { ...report, isLast: true });
}
// Worker threads of MLX need no goodbye, and must not hold the process.
process.exit();
