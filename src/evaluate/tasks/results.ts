/** Figures of tasks and groups, in the schema of the harness. */
import { UserError } from "../../errors";
import { aggregate, pooledError, standardError, unweightedError } from "./aggregate";
import { type Group, isGroup, leavesOf, type Selection } from "./select-tasks";
import type { Task } from "./task";
import type { Config } from "./task-yaml";

/** Figures by `metric,filter` and `metric_stderr,filter`, beside a name, an alias and a count of rows. */
export type Figures = Record<string, unknown>;

export interface Results {
  results: Record<string, Figures>;
  /** Those of groups that have any. */
  groups?: Record<string, Figures>;
  group_subtasks: Record<string, string[]>;
  configs: Record<string, unknown>;
  versions: Record<string, unknown>;
  "n-shot": Record<string, number>;
  higher_is_better: Record<string, Record<string, boolean | null>>;
  "n-samples": Record<string, { original: number; effective: number }>;
}

/** What the rows of a task scored: by filter, then by metric. */
export type RawScores = ReadonlyMap<string, ReadonlyMap<string, unknown[]>>;

export interface ScoredTask {
  task: Task;
  scores: RawScores;
}

/** Where a figure has no standard error. */
const none = "N/A";

const sorted = <T>(entries: Record<string, T>): Record<string, T> =>
  Object.fromEntries(Object.entries(entries).sort(([a], [b]) => (a < b ? -1 : 1)));

/** @param iterations of bootstraps */
export async function resultsOf(
  scored: ReadonlyMap<string, ScoredTask>,
  selection: Selection,
  iterations: number,
): Promise<Results> {
  const results: Record<string, Figures> = {};
  const versions: Record<string, unknown> = {};
  const shots: Record<string, number> = {};
  const better: Results["higher_is_better"] = {};
  const counts: Results["n-samples"] = {};
  const configs: Record<string, unknown> = {};
  for (const [name, { task, scores }] of scored) {
    const figures = await figuresOf(task, scores, iterations);
    results[name] = figures;
    versions[name] = versionOf(task.config) ?? "Yaml";
    shots[name] = task.numFewshot;
    better[name] = Object.fromEntries(task.metrics.map((metric) => [metric.name, metric.higherIsBetter]));
    counts[name] = { original: task.docs.length, effective: figures.sample_len as number };
    configs[name] = { ...task.config, num_fewshot: task.numFewshot };
  }
  const groups = [...selection.groups.values()];
  for (const group of bottomUp(groups)) {
    results[group.name] = groupFigures(group, results);
    versions[group.name] = String(versionOf(group.config) ?? none);
  }
  for (const { name, members } of groups) {
    const known = new Set(members.flatMap((member) => shots[member.name] ?? []));
    if (known.size === 1) shots[name] = [...known][0]!;
    const opinions = members.flatMap((member) => Object.entries(better[member.name] ?? {}));
    if (opinions.length > 0) better[name] = agreed(opinions);
  }
  const withFigures = groups.filter((group) => aggregations(group).length > 0).map(({ name }) => name);
  return {
    results,
    ...(withFigures.length > 0 && {
      groups: Object.fromEntries(Object.entries(results).filter(([name]) => withFigures.includes(name))),
    }),
    group_subtasks: Object.fromEntries(groups.map(({ name, members }) => [name, members.map((one) => one.name)])),
    configs: sorted(configs),
    versions: sorted(versions),
    "n-shot": sorted(shots),
    higher_is_better: sorted(better),
    "n-samples": counts,
  };
}

const versionOf = ({ metadata }: { metadata?: unknown }) => (metadata as Config | null | undefined)?.version;

/** Which way is better; null where members do not agree. */
function agreed(opinions: readonly [string, boolean | null][]): Record<string, boolean | null> {
  const all: Record<string, boolean | null> = {};
  for (const [metric, isBetter] of opinions) {
    all[metric] = !Object.hasOwn(all, metric) || all[metric] === isBetter ? isBetter : null;
  }
  return all;
}

async function figuresOf(task: Task, scores: RawScores, iterations: number): Promise<Figures> {
  const figures: Figures = { name: task.name, alias: task.config.task_alias ?? task.name, sample_len: 0 };
  for (const [filter, byMetric] of scores) {
    for (const [name, items] of byMetric) {
      const aggregation = task.aggregationOf(name);
      figures[`${name},${filter}`] = aggregate(aggregation, items);
      figures.sample_len = Math.max(figures.sample_len as number, items.length);
      figures[`${name}_stderr,${filter}`] = (await standardError(aggregation, items, iterations)) ?? none;
    }
  }
  return figures;
}

interface GroupAggregation {
  metric: string;
  filters: string[] | null;
  bySize: boolean;
}

/** @throws UserError for an aggregation that is no mean */
function aggregations({ name, path, config }: Group): GroupAggregation[] {
  const given = config.aggregate_metric_list ?? [];
  return [given].flat().map((one) => {
    const { metric, filter_list: filters = null, aggregation = "mean", weight_by_size: bySize = true } = one as Config;
    if (typeof metric === "string" && aggregation === "mean") {
      return { metric, filters: filters === null ? null : [filters].flat().map(String), bySize: bySize === true };
    }
    throw new UserError(`${path}: aggregate_metric_list of the group ${name} has ${JSON.stringify(one)}`, {
      hint: "Each entry needs a metric, and the aggregation mean.",
    });
  });
}

/** Members before the groups that they belong to. */
function bottomUp(groups: readonly Group[]): Group[] {
  const children = new Set(groups.flatMap(({ members }) => members.filter(isGroup).map(({ name }) => name)));
  const ordered = new Map<string, Group>();
  const visit = (group: Group) => {
    if (ordered.has(group.name)) return;
    for (const member of group.members) if (isGroup(member)) visit(member);
    ordered.set(group.name, group);
  };
  for (const group of groups) if (!children.has(group.name)) visit(group);
  return [...ordered.values()];
}

function groupFigures(group: Group, results: Readonly<Record<string, Figures>>): Figures {
  const figures: Figures = { alias: group.config.group_alias ?? group.name, name: group.name };
  const list = aggregations(group);
  if (list.length === 0) return figures;
  const leaves = leavesOf(group).map(({ name }) => results[name]!);
  figures.sample_len = leaves.reduce((sum, leaf) => sum + (leaf.sample_len as number), 0);
  const counts: Record<string, number> = {};
  for (const { metric, filters, bySize } of list) {
    for (const filter of filters ?? filtersOf(metric, leaves)) {
      const key = `${metric},${filter}`;
      const known = leaves.filter((leaf) => Object.hasOwn(leaf, key));
      if (known.length === 0) continue;
      const sizes = known.map((leaf) => leaf.sample_len as number);
      const errors = known.map((leaf) => leaf[`${metric}_stderr,${filter}`]);
      const weights = bySize ? sizes : sizes.map(() => 1);
      const total = known.reduce((sum, leaf, i) => sum + (leaf[key] as number) * weights[i]!, 0);
      figures[key] = total / weights.reduce((sum, weight) => sum + weight, 0);
      counts[key] = sizes.reduce((sum, size) => sum + size, 0);
      figures[`${metric}_stderr,${filter}`] = errors.every((error) => typeof error === "number")
        ? (bySize ? pooledError : unweightedError)(errors as number[], sizes)
        : none;
    }
  }
  if (Object.keys(counts).length > 0) figures.sample_count = counts;
  return figures;
}

/** The filters that a metric's figures are of. */
function filtersOf(metric: string, leaves: readonly Figures[]): string[] {
  const keys = leaves.flatMap((leaf) => Object.keys(leaf)).filter((key) => key.startsWith(`${metric},`));
  return [...new Set(keys.map((key) => key.slice(metric.length + 1)))].sort();
}
