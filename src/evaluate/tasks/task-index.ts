/** All tasks, groups and tags of some folders. */
import { readdir, realpath } from "node:fs/promises";
import { join } from "node:path";
import { ExitCode, UserError } from "../../errors";
import { type Config, TaskFiles } from "./task-yaml";

export type Entry =
  | { kind: "task" | "group"; name: string; path: string; config: Config }
  | { kind: "tag"; name: string; tasks: Set<string> };

export interface TaskIndex {
  readonly files: TaskFiles;
  readonly entries: Map<string, Entry>;
  /** Files that are no tasks, with what is wrong. */
  readonly problems: readonly { path: string; error: Error }[];
}

const ignored = /(?:^|[\\/])(?:__pycache__|\.ipynb_checkpoints)(?:[\\/]|$)/;

/** How many files are read at a time. */
const parallel = 64;

/**
 * Reads every YAML file below the folders; names in later folders replace those of earlier ones.
 * @throws UserError where a folder is not there
 */
export async function indexTasks(folders: readonly string[]): Promise<TaskIndex> {
  const files = new TaskFiles();
  const entries = new Map<string, Entry>();
  const problems: { path: string; error: Error }[] = [];
  for (const folder of folders) {
    const own = new Map<string, Entry>();
    const paths = await yamlFiles(folder);
    for (let i = 0; i < paths.length; i += parallel) {
      const batch = paths.slice(i, i + parallel);
      const loaded = await Promise.allSettled(batch.map((path) => files.load(path)));
      for (const [j, result] of loaded.entries()) {
        if (result.status === "fulfilled") register(own, batch[j]!, result.value);
        else problems.push({ path: batch[j]!, error: result.reason as Error });
      }
    }
    for (const [name, entry] of own) entries.set(name, entry);
  }
  return { files, entries, problems };
}

async function yamlFiles(folder: string): Promise<string[]> {
  try {
    const root = await realpath(folder);
    const names = await readdir(root, { recursive: true });
    return names
      .filter((name) => name.endsWith(".yaml") && !ignored.test(name))
      .map((name) => join(root, name))
      .sort();
  } catch (cause) {
    throw new UserError(`there is no folder ${folder} with tasks`, {
      code: ExitCode.notFound,
      hint: "Name the folder that holds the tasks' YAML files.",
      cause,
    });
  }
}

/** What a file defines; null for one that others include. */
export function entryOf(path: string, config: Config): Entry | null {
  const kind = Object.hasOwn(config, "class") || !Object.hasOwn(config, "group") ? "task" : "group";
  const name = config[kind];
  return typeof name === "string" ? { kind, name, path, config } : null;
}

/** The first file that has a name keeps it. */
function register(entries: Map<string, Entry>, path: string, config: Config): void {
  const entry = entryOf(path, config);
  if (!entry || entries.has(entry.name)) return;
  entries.set(entry.name, entry);
  if (entry.kind !== "task") return;
  for (const tag of config.tag === undefined || config.tag === null ? [] : [config.tag].flat()) {
    if (typeof tag !== "string") continue;
    const known = entries.get(tag) ?? { kind: "tag", name: tag, tasks: new Set<string>() };
    if (known.kind === "tag") known.tasks.add(entry.name);
    entries.set(tag, known);
  }
}
