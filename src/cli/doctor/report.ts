/** The findings as people read them. */
import { isatty } from "node:tty";
import { coloursOf } from "../colour";
import { columnsOf, wrapped } from "../width";
import type { Finding, Status } from "./finding";

const stdout = 1;

/** Signs on a terminal; words elsewhere, which can be searched for. */
const signs: Readonly<Record<Status, string>> = { ok: "✓", warn: "!", fail: "✗" };
const words: Readonly<Record<Status, string>> = { ok: "ok  ", warn: "warn", fail: "FAIL" };

/** Wide enough for most names. */
const nameColumns = 15;

const longest = 100;

export function report(findings: readonly Finding[]): string {
  const { bold, dim, good, caution, bad } = coloursOf(stdout);
  const paint = { ok: good, warn: caution, fail: bad };
  const marks = isatty(stdout) ? signs : words;
  const columns = isatty(stdout) ? Math.min(columnsOf(stdout), longest) : Number.POSITIVE_INFINITY;
  const indent = 2 + marks.ok.length + 1;
  const lines: string[] = [];
  let group = "";
  for (const finding of findings) {
    if (finding.group !== group) {
      group = finding.group;
      lines.push(...(lines.length > 0 ? [""] : []), bold(group));
    }
    const { name, status, text, hint } = finding;
    const isNarrow = columns - indent - nameColumns < 30;
    const head = `  ${paint[status](marks[status])} ${isNarrow ? name : name.padEnd(nameColumns)}`;
    const room = isNarrow ? columns - indent - 2 : columns - indent - nameColumns;
    const margin = " ".repeat(isNarrow ? indent + 2 : indent + Math.max(nameColumns, name.length + 1));
    const [first = "", ...more] = wrapped(text, room);
    const gap = !isNarrow && name.length >= nameColumns ? " " : "";
    lines.push(...(isNarrow ? [head, margin + first] : [head + gap + first]), ...more.map((line) => margin + line));
    for (const line of hint ? wrapped(`→ ${hint}`, room) : []) lines.push(margin + dim(line));
  }
  return `${[...lines, "", conclusion(findings)].join("\n")}\n`;
}

function conclusion(findings: readonly Finding[]): string {
  const { bold } = coloursOf(stdout);
  const count = (status: Status) => findings.filter((finding) => finding.status === status).length;
  const [failures, warnings] = [count("fail"), count("warn")];
  const some = (number: number, word: string) => `${number} ${word}${number === 1 ? "" : "s"}`;
  if (failures > 0) return bold(`${some(failures, "fault")} and ${some(warnings, "warning")}: see the arrows.`);
  return bold(warnings > 0 ? `It works, with ${some(warnings, "warning")}.` : "All is well.");
}
