/** What a dataset is: tables by the name of their split. */
import type { Rows } from "./rows";

/** The tables of a dataset, by the name of their split. */
export type Splits = ReadonlyMap<string, Rows>;

export interface DatasetOptions {
  /** The configuration of a dataset that has several. */
  name?: string;
  /** Files, or patterns with `*`, by split; without splits they are all `train`. */
  dataFiles?: unknown;
  /** The folder that they are in. */
  dataDir?: string;
  /** In JSON files, the field with the rows. */
  field?: string;
  /** Branch, tag or commit of the hub. */
  revision?: string;
  /** Told of what was chosen that the user may not expect. */
  onNotice?: (line: string) => void;
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}
