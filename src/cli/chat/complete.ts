/** What Tab completes: commands, and what follows some of them. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { knownModels } from "../known-models";
import { commandWords } from "./commands";
import { pathOf } from "./conversation";
import { settingNames } from "./settings";

/** As readline wants it: what may stand there, and the end of the line that it replaces. */
export type Completions = [candidates: string[], replaced: string];

/** @param line what stands before the cursor */
export async function completions(line: string): Promise<Completions> {
  const [, command, argument] = /^(\/[a-z]+)\s+(.*)$/.exec(line) ?? [];
  if (command === undefined || argument === undefined) return [startingWith(line, commandWords), line];
  return [await argumentsOf(command, argument), argument];
}

const startingWith = (begin: string, words: readonly string[]) => words.filter((word) => word.startsWith(begin));

async function argumentsOf(command: string, argument: string): Promise<string[]> {
  if (command === "/load" || command === "/save") return files(argument);
  if (command === "/set") return startingWith(argument, settingNames);
  if (command !== "/model") return [];
  const names = startingWith(argument, await knownModels());
  // A folder, or a GGUF file.
  return names.length > 0 ? names : files(argument);
}

/** Paths that begin as typed; a folder's ends with a slash. None where the folder cannot be read. */
async function files(typed: string): Promise<string[]> {
  const folder = typed.slice(0, typed.lastIndexOf("/") + 1);
  const begin = typed.slice(folder.length);
  const path = pathOf(folder === "" ? "." : folder);
  const names = await readdir(path).catch(() => []);
  const shown = names.filter(
    (name) => name.startsWith(begin) && (begin !== "" || !name.startsWith(".")) && isSafe(name),
  );
  return Promise.all(
    shown.sort().map(async (name) => {
      const facts = await stat(join(path, name)).catch(() => null);
      return `${folder}${name}${facts?.isDirectory() ? "/" : ""}`;
    }),
  );
}

/** Control characters in a name would steer the terminal. */
const isSafe = (name: string) => !/\p{Cc}/u.test(name);
