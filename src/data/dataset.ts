/** Datasets as Python's `datasets` names them: a kind of file with its files, a folder, a file, a repo of the hub. */
import { readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { ExitCode, UserError } from "../errors";
import { nearest } from "../nearest";
import { formatOf, openRows, type ReadOptions, type RowFormat, rowFormats } from "./row-files";
import type { Rows } from "./rows";
import type { DatasetOptions, Splits } from "./splits";

/** `datasets.load_dataset("json", …)`: the path is a kind of file. */
const builders: Record<string, RowFormat> = { json: "jsonl", csv: "csv", parquet: "parquet", text: "txt" };

/** What names of files say about their split. */
const splitWords: [split: string, words: readonly string[]][] = [
  ["train", ["train", "training"]],
  ["validation", ["validation", "valid", "dev", "val"]],
  ["test", ["test", "testing", "eval", "evaluation"]],
];

/** @throws UserError where there is no such dataset, or one of its files cannot be read */
export async function openDataset(path: string, options: DatasetOptions = {}): Promise<Splits> {
  const { dataFiles, dataDir, field, name, onNotice } = options;
  if (Object.hasOwn(builders, path)) {
    if (dataFiles === undefined && dataDir === undefined) {
      throw new UserError(`the dataset "${path}" is a kind of file, and no file is named`, {
        hint: "Name files under dataset_kwargs: data_files.",
      });
    }
    const format = builders[path] as RowFormat;
    if (dataFiles === undefined) return openFolder(dataDir!, { field, onNotice });
    return openFiles(dataFiles, dataDir ?? ".", path === "json" ? { field } : { format, field });
  }
  const facts = await stat(path).catch(() => null);
  if (facts && !facts.isDirectory()) return new Map([["train", await openRows([path], { field })]]);
  if (facts) {
    const folder = dataDir === undefined ? path : join(path, dataDir);
    if (dataFiles !== undefined) return openFiles(dataFiles, folder, { field });
    const inner = name === undefined ? null : await stat(join(folder, name)).catch(() => null);
    return openFolder(inner?.isDirectory() ? join(folder, name!) : folder, { field, onNotice });
  }
  const { openHubDataset } = await import("./hub-dataset");
  return openHubDataset(path, options);
}

/** @throws UserError where there is no such split, naming those that there are */
export function splitNamed(splits: Splits, split: string, dataset: string): Rows {
  const rows = splits.get(split);
  if (rows) return rows;
  const names = [...splits.keys()];
  const [similar] = nearest(split, names, 1);
  throw new UserError(`${dataset} has no split "${split}"; it has ${names.join(", ") || "none"}`, {
    code: ExitCode.notFound,
    hint: similar ? `Did you mean ${similar}?` : "Check the names of splits.",
  });
}

async function openFiles(dataFiles: unknown, folder: string, options: ReadOptions): Promise<Splits> {
  const given =
    typeof dataFiles === "object" && dataFiles !== null && !Array.isArray(dataFiles) ? dataFiles : { train: dataFiles };
  const splits = new Map<string, Rows>();
  for (const [split, patterns] of Object.entries(given)) {
    const paths: string[] = [];
    for (const pattern of [patterns].flat()) {
      if (typeof pattern !== "string") {
        throw new UserError(`data_files names ${JSON.stringify(pattern)} for "${split}", which is no path`, {
          hint: "Give a path, or a list of paths.",
        });
      }
      if (/^(?:https?|hf|s3):/.test(pattern)) {
        throw new UserError(`data_files names ${pattern}: mlxlm reads files of this machine here`, {
          code: ExitCode.notFound,
          hint: "Download it and name the file.",
        });
      }
      paths.push(...(await expand(pattern, folder)));
    }
    splits.set(split, await openRows(paths, options));
  }
  return splits;
}

async function expand(pattern: string, folder: string): Promise<string[]> {
  const path = resolve(folder, pattern);
  if (!/[*?[]/.test(pattern) || (await stat(path).catch(() => null))) return [path];
  const paths: string[] = [];
  for await (const file of new Bun.Glob(path).scan({ absolute: true })) paths.push(file);
  if (paths.length > 0) return paths.sort();
  throw new UserError(`no file matches ${path}`, { code: ExitCode.notFound, hint: "Check data_files." });
}

/** The files of a folder, and of `data` or folders named by a split in it, told apart by their names. */
async function openFolder(folder: string, options: ReadOptions & Pick<DatasetOptions, "onNotice">): Promise<Splits> {
  const names = await readdir(folder, { recursive: true }).catch((error: NodeJS.ErrnoException) => {
    throw new UserError(`${folder} cannot be read: ${error.message}`, { code: ExitCode.notFound, cause: error });
  });
  const files = names.filter((name) => formatOf(name) !== undefined && !/(^|[\\/])[._]/.test(name)).sort();
  const data = files.filter((name) => formatOf(name) !== "txt" && !/(^|[\\/])dataset_infos?\.json$/.test(name));
  const groups = Map.groupBy(data.length > 0 ? data : files, splitOf);
  if (groups.size === 0) {
    const inner = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isDirectory());
    const folders = inner
      .map(({ name }) => name)
      .slice(0, 5)
      .join(", ");
    throw new UserError(`${folder} has no files with data${folders && `, nor have its folders (${folders})`}`, {
      code: ExitCode.notFound,
      hint: `It may hold train, validation and test files: .${rowFormats.join(", .")}`,
    });
  }
  if (![...groups.values()].flat().some((name) => basename(name) === name)) {
    const shown = [...groups.values()].flat().slice(0, 5).join(", ");
    options.onNotice?.(`${folder} has no data files of its own. Taking those of its folders: ${shown}`);
  }
  const known = [...groups].filter(([split]) => split !== "");
  // Where no name tells a split, all of it is training data, as for Python.
  const parts: [string, string[]][] = known.length > 0 ? known : [["train", groups.get("")!]];
  const splits = new Map<string, Rows>();
  for (const [split, members] of parts) {
    splits.set(
      split,
      await openRows(
        members.map((name) => join(folder, name)),
        options,
      ),
    );
  }
  return splits;
}

/** The split that a file's name, or its folder's, tells; "" for none. */
function splitOf(file: string): string {
  const path = file.toLowerCase().split(/[\\/]/);
  for (const part of path.toReversed()) {
    const words = basename(part).split(/[-._ 0-9]+/);
    const found = splitWords.find(([, names]) => names.some((name) => words.includes(name)));
    if (found) return found[0];
  }
  return "";
}
