/** Results as a table in Markdown: the harness's. */
import { floatText } from "../../text/python-numbers";
import type { Figures, Results } from "./results";

const headings = ["Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr"];

const unknownError = "   N/A";

/** What is no figure among a task's figures. */
const others = new Set(["alias", "name", "sample_len", "sample_count"]);

/** @param column of the results: all tasks and groups, or groups alone */
export function resultsTable(found: Results, column: "results" | "groups" = "results"): string {
  const shown = found[column] ?? {};
  const rows: string[][] = [];
  for (const [name, depth] of ordered(found.group_subtasks, Object.keys(shown))) {
    const figures = shown[name]!;
    const alias = String(figures.alias ?? name);
    const title = depth > 0 ? `${" ".repeat(depth)}- ${alias}` : alias;
    const facts = [title, versionText(found.versions[name] ?? "    N/A"), String(found["n-shot"][name] ?? " ")];
    rows.push(...rowsOf(figures, facts as [string, string, string], found.higher_is_better[name] ?? {}));
  }
  return markdown([column === "groups" ? "Groups" : "Tasks", ...headings], rows);
}

function rowsOf(
  figures: Figures,
  [title, version, shots]: [string, string, string],
  better: Readonly<Record<string, boolean | null>>,
): string[][] {
  const keys = Object.keys(figures)
    .filter((key) => !others.has(key))
    .sort();
  const rows: string[][] = [];
  for (const key of keys) {
    const [metric, filter] = splitOnce(key);
    if (metric.endsWith("_stderr")) continue;
    const arrow = { true: "↑", false: "↓" }[String(better[metric])] ?? "";
    const error = figures[`${metric}_stderr,${filter}`];
    const last = error === undefined ? ["", ""] : ["±", typeof error === "number" ? error.toFixed(4) : unknownError];
    const facts = rows.length === 0 ? [title, version] : ["", ""];
    rows.push([...facts, filter, shots, metric, arrow, figureText(figures[key]), ...last]);
  }
  return rows;
}

function splitOnce(key: string): [string, string] {
  const at = key.indexOf(",");
  return at < 0 ? [key, ""] : [key.slice(0, at), key.slice(at + 1)];
}

const figureText = (value: unknown) => (typeof value === "number" ? value.toFixed(4) : String(value));

const versionText = (version: unknown) =>
  typeof version === "number" && !Number.isInteger(version) ? floatText(version) : String(version);

/** Members below their groups, with how deep they stand; in the order of names. */
function ordered(members: Readonly<Record<string, string[]>>, names: readonly string[]): [string, number][] {
  const order: [string, number][] = [];
  const seen = new Set<string>();
  const visit = (name: string, depth: number) => {
    seen.add(name);
    if (names.includes(name)) order.push([name, depth]);
    for (const child of [...(members[name] ?? [])].sort()) visit(child, depth + 1);
  };
  const children = new Set(Object.values(members).flat());
  for (const name of Object.keys(members).sort()) if (!children.has(name)) visit(name, 0);
  for (const name of [...names].sort()) if (!seen.has(name)) order.push([name, 0]);
  return order;
}

/** Digits behind the point that a number needs. */
const decimals = (value: number) => floatText(value).split(".")[1]?.replace(/^0$/, "").length ?? 0;

/**
 * The cells of a column as the harness's table writer has them: it takes texts apart, and gives all numbers the digits
 * that one of them needs; whole ones beside words have none.
 */
function aligned(cells: readonly string[]): { texts: string[]; isNumeric: boolean } {
  const values = cells.map((cell) => (number.test(cell) ? Number(cell) : null));
  const isNumeric =
    values.some((value) => value !== null) && cells.every((cell, i) => values[i] !== null || cell === "");
  if (!isNumeric && cells[0] === unknownError) return { texts: [...cells], isNumeric };
  const digits = Math.max(0, ...values.map((value) => (value === null ? 0 : decimals(value))));
  const texts = cells.map((cell, i) => {
    const value = values[i]!;
    if (value === null) return cell;
    return value.toFixed(isNumeric || !Number.isInteger(value) ? digits : 0);
  });
  return { texts, isNumeric };
}

const number = /^-?\d+(?:\.\d+)?$/;

/** Headings are centred, numbers stand to the right. */
function markdown(titles: readonly string[], rows: readonly string[][]): string {
  const columns = titles.map((title, i) => {
    const { texts, isNumeric } = aligned(rows.map((row) => row[i]!));
    const width = Math.max(3, title.length, ...texts.map((text) => text.length));
    const heading = (" ".repeat(Math.floor((width - title.length) / 2)) + title).padEnd(width);
    const rule = isNumeric ? `${"-".repeat(width - 1)}:` : "-".repeat(width);
    return [heading, rule, ...texts.map((text) => (number.test(text) ? text.padStart(width) : text.padEnd(width)))];
  });
  return columns[0]!.map((_, row) => `|${columns.map((column) => column[row]).join("|")}|\n`).join("");
}
