/** From names to tasks: groups and tags are opened up, what they say of their members comes on top. */
import { existsSync } from "node:fs";
import { ExitCode, UserError } from "../../errors";
import { nearest } from "../../nearest";
import { type Entry, entryOf, type TaskIndex } from "./task-index";
import type { Config } from "./task-yaml";

/** A task's configuration with all overrides, and the file that it comes from. */
export interface TaskSource {
  name: string;
  /** Of the file; for a task that a group defines inside itself, the group's. */
  path: string;
  config: Config;
}

export interface Group {
  name: string;
  path: string;
  config: Config;
  members: readonly (Group | TaskSource)[];
}

export const isGroup = (member: Group | TaskSource): member is Group => "members" in member;

export interface Selection {
  /** Every task once, in the order of its first mention. */
  tasks: Map<string, TaskSource>;
  groups: Map<string, Group>;
}

/** Keys of a group that are its own. All others are for its members. */
const groupKeys = new Set(["group", "group_alias", "task", "aggregate_metric_list", "metadata"]);

/** Far deeper than groups nest. */
const deepest = 32;

/**
 * Names of tasks, groups and tags, patterns with `*`, or paths of YAML files.
 * @throws UserError for what is none of them, and for a task that is asked for twice
 */
export async function selectTasks(index: TaskIndex, names: readonly string[]): Promise<Selection> {
  const chosen: (Group | TaskSource)[] = [];
  for (const name of names.flatMap((one) => matching(one, index))) chosen.push(...(await resolveName(index, name)));
  const selection: Selection = { tasks: new Map(), groups: new Map() };
  const origins = new Map<string, string>();
  for (const item of chosen) {
    for (const task of leavesOf(item)) {
      const origin = origins.get(task.name);
      if (origin !== undefined && origin !== item.name) {
        throw new UserError(`the task ${task.name} is asked for twice: by ${origin} and by ${item.name}`, {
          code: ExitCode.usage,
          hint: "Name one of them.",
        });
      }
      origins.set(task.name, item.name);
      selection.tasks.set(task.name, task);
    }
    for (const group of groupsOf(item)) selection.groups.set(group.name, group);
  }
  return selection;
}

export function leavesOf(item: Group | TaskSource): TaskSource[] {
  return isGroup(item) ? item.members.flatMap(leavesOf) : [item];
}

function groupsOf(item: Group | TaskSource): Group[] {
  return isGroup(item) ? [item, ...item.members.flatMap(groupsOf)] : [];
}

/** The names that a pattern stands for; itself where it is none. */
function matching(pattern: string, { entries }: TaskIndex): string[] {
  if (!/[*?[]/.test(pattern) || entries.has(pattern)) return [pattern];
  const glob = new Bun.Glob(pattern);
  const found = [...entries.keys()].filter((name) => glob.match(name)).sort();
  return found.length > 0 ? found : [pattern];
}

async function resolveName(index: TaskIndex, name: string): Promise<(Group | TaskSource)[]> {
  const entry = index.entries.get(name) ?? (await entryOfFile(index, name));
  if (entry) return build(index, entry, {}, 0);
  const similar = nearest(name, [...index.entries.keys()]);
  const broken = index.problems.find(({ path }) => path.endsWith(`/${name}.yaml`));
  if (broken) throw broken.error;
  throw new UserError(`there is no task, group or tag "${name}" among ${index.entries.size}`, {
    code: ExitCode.notFound,
    hint: similar.length > 0 ? `Did you mean ${similar.join(", ")}?` : "See --tasks list for all of them.",
  });
}

async function entryOfFile(index: TaskIndex, path: string): Promise<Entry | null> {
  if (!/\.ya?ml$/.test(path) || !existsSync(path)) return null;
  const entry = entryOf(path, await index.files.load(path));
  if (entry) return entry;
  throw new UserError(`${path} names neither a task nor a group`, { hint: "Give it a line `task: NAME`." });
}

function build(index: TaskIndex, entry: Entry, overrides: Config, depth: number): (Group | TaskSource)[] {
  if (depth > deepest) throw new UserError(`the group ${entry.name} contains itself`, { hint: "Repair its file." });
  if (entry.kind === "tag") {
    return [...entry.tasks].sort().flatMap((name) => build(index, index.entries.get(name)!, overrides, depth + 1));
  }
  if (entry.kind === "group") return [buildGroup(index, entry.name, entry.path, entry.config, overrides, depth)];
  const { tag: _t, group: _g, task_list: _l, ...config } = { ...entry.config, ...overrides };
  return [{ name: String(config.task), path: entry.path, config }];
}

function buildGroup(
  index: TaskIndex,
  name: string,
  path: string,
  config: Config,
  overrides: Config,
  depth: number,
): Group {
  const inherited = Object.fromEntries(Object.entries(config).filter(([key]) => !groupKeys.has(key)));
  const all = { ...inherited, ...overrides };
  const list = Array.isArray(config.task) ? config.task : [];
  const members = list.flatMap((item) => buildMember(index, item, { name, path }, all, depth + 1));
  return { name, path, config, members };
}

function buildMember(
  index: TaskIndex,
  item: unknown,
  group: { name: string; path: string },
  overrides: Config,
  depth: number,
): (Group | TaskSource)[] {
  if (depth > deepest) throw new UserError(`the group ${group.name} contains itself`, { hint: "Repair its file." });
  const own = typeof item === "object" && item !== null && !Array.isArray(item) ? (item as Config) : null;
  if (own && typeof own.group === "string") {
    const { group: name, ...rest } = own;
    const entry = index.entries.get(name as string);
    if (entry) return build(index, entry, { ...overrides, ...rest }, depth);
    return [buildGroup(index, `${group.name}::${name}`, group.path, own, overrides, depth)];
  }
  const name = own ? own.task : item;
  if (typeof name !== "string") {
    throw new UserError(`${group.path}: the group ${group.name} names ${JSON.stringify(item)}, which is no task`, {
      hint: "List names, or mappings with a key `task` or `group`.",
    });
  }
  const changes = own ? { ...overrides, ...own } : overrides;
  const entry = index.entries.get(name);
  if (entry?.kind === "task") return build(index, entry, { task: name, ...changes }, depth);
  if (entry) return build(index, entry, changes, depth);
  if (own && Object.keys(own).length > 1) {
    const namespaced = `${group.name}::${name}`;
    return [{ name: namespaced, path: group.path, config: { ...changes, task: namespaced } }];
  }
  const similar = nearest(name, [...index.entries.keys()]);
  throw new UserError(`${group.path}: the group ${group.name} names the task "${name}", which does not exist`, {
    code: ExitCode.notFound,
    hint: similar.length > 0 ? `Did you mean ${similar.join(", ")}?` : "Check the name.",
  });
}
