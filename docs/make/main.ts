#!/usr/bin/env bun
/**
 * Makes what is generated of the docs, and the table of what models show: `bun run docs`. The rest of a page is written by
 * hand and stays: generated parts stand between two comments.
 */
import { existsSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { loadedCommands } from "../../cmd/commands";
import { topics } from "../../src/cli/topics";
import { catalogue } from "../../src/models/catalogue";
import { factsSource, measureModels } from "./model-facts";
import { commandList, commandPart, ggufPart, modelTable, topicPage } from "./pages";

export const root = join(import.meta.dir, "../..");

const begin = "<!-- made by bun run docs -->";
const end = "<!-- end -->";

/** The page with its generated part anew; a page of that part alone where there is none yet. */
function withPart(path: string, title: string, part: string): string {
  const marked = `${begin}\n\n${part}\n\n${end}`;
  const file = join(root, path);
  if (!existsSync(file)) return `# ${title}\n\n${marked}\n`;
  const page = readFileSync(file, "utf8");
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${path} has no part between ${begin} and ${end}`);
  return page.slice(0, from) + marked + page.slice(to + end.length);
}

/** All files that are made, by their paths from the root. */
export async function madeFiles(): Promise<Map<string, string>> {
  const measured = await measureModels();
  const commands = await loadedCommands();
  const files = new Map<string, string>();
  files.set("src/models/generated/facts.ts", factsSource(measured));
  const add = (path: string, title: string, part: string) => files.set(path, withPart(path, title, part));
  const entries = await catalogue(measured);
  add("docs/models.md", "Models", modelTable(entries));
  add("docs/gguf.md", "GGUF files", ggufPart(entries, commands.find(({ name }) => name === "fuse")!));
  add("docs/commands/README.md", "Commands", commandList(commands));
  for (const command of commands) {
    add(`docs/commands/${command.name}.md`, `mlxlm ${command.name}`, commandPart(command));
  }
  for (const topic of topics) files.set(`docs/help/${topic.name}.md`, `${begin}\n\n${topicPage(topic)}\n`);
  return files;
}

if (import.meta.main) {
  for (const [path, text] of await madeFiles()) {
    const file = join(root, path);
    if (existsSync(file) && readFileSync(file, "utf8") === text) continue;
    await mkdir(dirname(file), { recursive: true });
    await Bun.write(file, text);
    console.error(`wrote ${path}`);
  }
  process.exit();
}
