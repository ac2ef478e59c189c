/** Rows of data files: JSON Lines, JSON, CSV, plain text, Parquet. */
import { ExitCode, UserError } from "../errors";
import { decodeText, inputFile } from "../input-file";
import type { JsonOptions } from "./json-file";
import { JoinedRows, RowList, type Rows } from "./rows";

/** The kinds of file that are read, by the end of their names. */
export const rowFormats = ["jsonl", "json", "csv", "tsv", "txt", "parquet"] as const;
export type RowFormat = (typeof rowFormats)[number];

export interface ReadOptions extends JsonOptions {
  /** In spite of the name. */
  format?: RowFormat;
}

/** The format that a file's name tells; undefined for another file. */
export function formatOf(path: string): RowFormat | undefined {
  const end = /\.(\w+)$/.exec(path)?.[1]?.toLowerCase();
  return end === "ndjson" ? "jsonl" : rowFormats.find((format) => format === end);
}

/**
 * The rows of files that belong together.
 * @throws UserError where one is missing or is not what its name says
 */
export async function openRows(paths: readonly string[], options: ReadOptions = {}): Promise<Rows> {
  const parts: Rows[] = [];
  for (const path of paths) parts.push(await openFile(path, options));
  return parts.length === 1 ? parts[0]! : new JoinedRows(parts);
}

/** A text that JavaScript can hold must stay well below 2³⁰ characters. */
const largestText = 512 * 2 ** 20;

async function openFile(path: string, { format = formatOf(path), ...options }: ReadOptions): Promise<Rows> {
  const facts = await inputFile(path);
  if (!facts) throw new UserError(`there is no file ${path}`, { code: ExitCode.notFound, hint: "Check the path." });
  if (format === undefined) {
    throw new UserError(`${path}: mlxlm cannot tell from its name what kind of data it is`, {
      code: ExitCode.usage,
      hint: `Name it by its kind: .${rowFormats.join(", .")}`,
    });
  }
  if (format === "parquet") {
    const { openParquet } = await import("./parquet-file");
    return openParquet(path, facts.size);
  }
  if (facts.size > largestText) {
    throw new UserError(`${path} is too large to be read at once (${Math.round(facts.size / 1e6)} MB)`, {
      code: ExitCode.resources,
      hint: "Split it into several files, or convert it to Parquet.",
    });
  }
  const text = decodeText(await Bun.file(path).bytes(), path);
  switch (format) {
    case "csv":
    case "tsv": {
      const { readCsv } = await import("./csv-file");
      return readCsv(text, path, format === "csv" ? "," : "\t");
    }
    case "txt":
      return new RowList(
        text
          .replace(/\r?\n$/, "")
          .split(/\r?\n/)
          .map((line) => ({ text: line })),
        (i) => `${path}, line ${i + 1}`,
      );
    case "json":
    case "jsonl": {
      const { readJson, readJsonLines } = await import("./json-file");
      return format === "json" ? readJson(text, path, options) : readJsonLines(text, path, options);
    }
  }
}
