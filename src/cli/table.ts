/** Rows under headings, in columns as wide as they need to be; and sizes and times in words. */

import { isatty } from "node:tty";
import { columnsOf } from "./width";

/** As mlx-lm prints tables: numbers to the right, every column padded and followed by a space, the last too. */
export function table(headings: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const widths = headings.map((heading, i) => Math.max(heading.length, ...rows.map((row) => `${row[i]}`.length)));
  const pad = (cell: string | number, width: number) =>
    typeof cell === "number" ? `${cell}`.padStart(width) : cell.padEnd(width);
  const line = (cells: readonly (string | number)[]) => cells.map((cell, i) => `${pad(cell, widths[i]!)} `).join("");
  return [headings, widths.map((width) => "-".repeat(width)), ...rows].map(line).join("\n");
}

/** The table, on a terminal without its last columns where they do not fit. */
export function fittingTable(headings: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const room = isatty(1) ? columnsOf(1) : Number.POSITIVE_INFINITY;
  for (let count = headings.length; count > 2; count--) {
    const text = table(
      headings.slice(0, count),
      rows.map((row) => row.slice(0, count)),
    );
    const width = text.indexOf("\n");
    // Every line ends in a space, which may fall off.
    if (width - 1 <= room) return text;
  }
  return table(
    headings.slice(0, 1),
    rows.map((row) => row.slice(0, 1)),
  );
}

/** 1234567 → "1.2M", in steps of a thousand. */
export function sizeInWords(bytes: number): string {
  let size = bytes;
  for (const unit of ["", "K", "M", "G", "T"]) {
    if (Math.abs(size) < 1000) return `${size.toFixed(1)}${unit}`;
    size /= 1000;
  }
  return `${size.toFixed(1)}P`;
}

/** Seconds of a unit, and up to how many of it are named. */
const units = [
  ["second", 1, 59],
  ["minute", 60, 59],
  ["hour", 3600, 23],
  ["day", 86_400, 6],
  ["week", 604_800, 6],
  ["month", 2_592_000, 11],
  ["year", 31_536_000, Number.POSITIVE_INFINITY],
] as const;

/** "3 days ago" */
export function timeInWords(then: Date, now = new Date()): string {
  const seconds = (now.getTime() - then.getTime()) / 1000;
  if (seconds < 20) return "a few seconds ago";
  const [unit, length] = units.find(([, length, most]) => Math.round(seconds / length) <= most)!;
  const count = Math.round(seconds / length);
  return `${count} ${unit}${count > 1 ? "s" : ""} ago`;
}
