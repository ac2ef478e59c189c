/** Parquet files: row groups are read when a row of theirs is asked for. */
import { closeSync, openSync, readSync } from "node:fs";
import { type AsyncBuffer, type FileMetaData, parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { UserError } from "../errors";
import { inputFile } from "../input-file";
import type { Row, Rows } from "./rows";

/** Levels of a schema that stand for "the items of this list" and are no fields. */
const listLevels = new Set(["list", "bag", "element", "item", "array", "array_element", "key_value"]);

const utf8 = new TextDecoder("utf-8", { fatal: true });

const parsers = {
  stringFromBytes(bytes: Uint8Array | undefined): string | undefined {
    try {
      return bytes && utf8.decode(bytes);
    } catch {
      throw new Error("a text in it is not UTF-8");
    }
  },
};

/** How many row groups are kept: rows are often asked for in random order. */
const keptGroups = 4;

/** @throws UserError for a file that is damaged, or packed in a way that is not known */
export async function openParquet(path: string, size: number): Promise<Rows> {
  try {
    await inputFile(path);
    const file = bufferOf(path, size);
    const head = new Uint8Array(await file.slice(0, Math.min(4, size)));
    if (String.fromCharCode(...head) !== "PAR1") throw new Error("it does not begin with PAR1");
    const metadata = await parquetMetadataAsync(file);
    return new ParquetRows(path, file, metadata);
  } catch (error) {
    throw damaged(path, error);
  }
}

/** Each part is read in one go: nothing is still being read when another part has failed. */
function bufferOf(path: string, byteLength: number): AsyncBuffer {
  return {
    byteLength,
    slice: async (start, end = byteLength) => {
      const from = start < 0 ? Math.max(0, byteLength + start) : start;
      const bytes = new Uint8Array(Math.max(0, Math.min(end, byteLength) - from));
      const file = openSync(path, "r");
      try {
        const count = readSync(file, bytes, 0, bytes.length, from);
        if (count < bytes.length) throw new Error("it ends too early");
      } finally {
        closeSync(file);
      }
      return bytes.buffer;
    },
  };
}

/** The parser's own words, unless they show where it fell over what the file says. */
function reasonOf(cause: unknown): string {
  const isProgram = cause instanceof TypeError || cause instanceof RangeError || cause instanceof SyntaxError;
  return isProgram ? "its structure is not that of a Parquet file" : (cause as Error).message.slice(0, 300);
}

function damaged(path: string, cause: unknown): UserError {
  return new UserError(`${path} cannot be read as Parquet: ${reasonOf(cause)}`, {
    hint: "Download or write the file again.",
    cause,
  });
}

class ParquetRows implements Rows {
  readonly length: number;
  readonly columns: readonly string[];
  readonly floats: ReadonlySet<string>;
  /** The first row of each group, and behind them the number of rows. */
  readonly #starts: number[] = [0];
  readonly #groups = new Map<number, Promise<Row[]>>();

  constructor(
    private readonly path: string,
    private readonly file: AsyncBuffer,
    private readonly metadata: FileMetaData,
  ) {
    for (const { num_rows } of metadata.row_groups) {
      const rows = Number(num_rows);
      this.#starts.push(this.#starts.at(-1)! + rows);
      if (rows < 0 || !Number.isSafeInteger(this.#starts.at(-1))) throw new Error("a group says no number of rows");
    }
    this.length = this.#starts.at(-1)!;
    const { columns, floats, leaves } = readSchema(metadata);
    for (const group of metadata.row_groups) checkChunks(group, leaves);
    this.columns = columns;
    this.floats = floats;
  }

  async at(index: number): Promise<Row> {
    const group = this.#starts.findLastIndex((start) => start <= index);
    const row = index < this.length ? (await this.#group(group))[index - this.#starts[group]!] : undefined;
    if (!row) throw new RangeError(`there is no row ${index} among ${this.length}`);
    return row;
  }

  where(index: number): string {
    return `${this.path}, row ${index + 1}`;
  }

  all(): Promise<Row[]> {
    return this.#read(0, this.length);
  }

  #group(index: number): Promise<Row[]> {
    const known = this.#groups.get(index);
    this.#groups.delete(index);
    const rows = known ?? this.#read(this.#starts[index]!, this.#starts[index + 1]!);
    this.#groups.set(index, rows);
    if (this.#groups.size > keptGroups) this.#groups.delete(this.#groups.keys().next().value!);
    return rows;
  }

  async #read(rowStart: number, rowEnd: number): Promise<Row[]> {
    if (rowStart === rowEnd) return [];
    try {
      const { file, metadata } = this;
      const rows = await parquetReadObjects({ file, metadata, compressors, parsers, rowStart, rowEnd });
      if (rows.length !== rowEnd - rowStart)
        throw new Error(`it promises ${rowEnd - rowStart} rows and has ${rows.length}`);
      return rows.map((row) => plain(row) as Row);
    } catch (error) {
      throw damaged(this.path, error);
    }
  }
}

/** Large integers as numbers where those are exact, else as their digits; dates as texts. */
function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : value.toString();
  if (value === undefined) return null;
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Date) return value.toISOString();
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
}

/** Nobody would wait for a chunk of data that is no column's: its failure would end the program. */
function checkChunks({ columns }: FileMetaData["row_groups"][number], leaves: ReadonlySet<string>): void {
  const seen = new Set<string>();
  for (const { meta_data: facts } of columns) {
    const path = JSON.stringify(facts?.path_in_schema);
    if (!leaves.has(path) || seen.has(path))
      throw new Error(`a group has data of ${path.slice(0, 100)}, no column of its own`);
    seen.add(path);
  }
}

function readSchema({ schema }: FileMetaData): { columns: string[]; floats: Set<string>; leaves: Set<string> } {
  const leaves = new Set<string>();
  const columns: string[] = [];
  const floats = new Set<string>();
  let at = 1;
  const visit = (path: readonly string[], whole: readonly string[], depth: number) => {
    const element = schema[at++];
    if (!element) return;
    const { name, num_children: children = 0, type } = element;
    if (depth === 0) columns.push(name);
    const own = depth > 0 && listLevels.has(name) ? path : [...path, name];
    const named = [...whole, name];
    if (children === 0) leaves.add(JSON.stringify(named));
    if (type === "FLOAT" || type === "DOUBLE") floats.add(own.join("."));
    for (let i = 0; i < children && at < schema.length; i++) visit(own, named, depth + 1);
  };
  while (at < schema.length) visit([], [], 0);
  return { columns, floats, leaves };
}
