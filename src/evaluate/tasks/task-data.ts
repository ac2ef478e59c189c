/** A task's dataset: the rows to evaluate, and those that examples come from. */
import { openDataset, splitNamed } from "../../data/dataset";
import type { Row, Rows } from "../../data/rows";
import type { Splits } from "../../data/splits";
import { UserError } from "../../errors";
import { guarded } from "./fields";
import { portOf } from "./ports";
import type { PortContext, ProcessDocs } from "./ports/port";
import type { TaskConfig } from "./task-config";
import { Doc } from "./task-template";
import { PythonFunction } from "./task-yaml";

export interface DataOptions extends PortContext {
  /** Opened datasets, for tasks that share one. */
  datasets: Map<string, Promise<Splits>>;
  onDownload?: (dataset: string, done: number, total: number) => void;
  signal?: AbortSignal;
}

const processedRows = new WeakMap<Rows, Map<string, readonly Row[]>>();

export class TaskData {
  constructor(
    private readonly config: TaskConfig,
    private readonly owner: string,
    private readonly options: DataOptions,
  ) {}

  async evaluated(): Promise<Doc[]> {
    const { test_split, validation_split, process_docs } = this.config;
    const split = test_split ?? validation_split;
    if (split !== undefined) return this.#docs(split, process_docs);
    throw new UserError(`${this.owner} names neither test_split nor validation_split`, {
      hint: "Say in its file which rows to evaluate.",
    });
  }

  /** Where no examples are wanted, only functions that draw random numbers see their rows, as in Python. */
  async examples(count: number): Promise<Doc[]> {
    const { fewshot_config: fewshot, fewshot_split, process_docs } = this.config;
    if (count === 0 && !process_docs) return [];
    const { training_split, validation_split, test_split } = this.config;
    const split = fewshot?.split ?? fewshot_split;
    if (split !== undefined) return this.#docs(split, fewshot?.process_docs ?? process_docs);
    const samples = fewshot?.samples;
    if (samples instanceof PythonFunction) {
      const port = (await portOf(samples, `${this.owner}: fewshot_config.samples`)) as () => Row[];
      return port().map((row) => new Doc(row));
    }
    if (samples) return samples.map((row) => new Doc(row));
    return this.#docs((training_split ?? validation_split ?? test_split)!, process_docs);
  }

  async #docs(split: string, process: PythonFunction | undefined): Promise<Doc[]> {
    const rows = splitNamed(await this.#splits(), split, `${this.owner}: its dataset`);
    const all = await rows.all();
    if (!process) return all.map((row) => new Doc(row, rows.floats));
    const processed = await this.#processed(rows, all, process);
    return processed.map((row) => new Doc(row, rows.floats));
  }

  /** A function's work on a table, done once: it may draw random numbers. */
  async #processed(rows: Rows, all: readonly Row[], process: PythonFunction): Promise<readonly Row[]> {
    const known = processedRows.get(rows) ?? new Map<string, readonly Row[]>();
    processedRows.set(rows, known);
    const key = `${process.folder} ${process.name}`;
    const port = (await portOf(process, `${this.owner}: process_docs`)) as ProcessDocs;
    const processed = known.get(key) ?? guarded(`${this.owner}: process_docs`, () => port(all, this.options));
    known.set(key, processed);
    return processed;
  }

  #splits(): Promise<Splits> {
    const { dataset_path: path, dataset_name: name, dataset_kwargs: kwargs = {} } = this.config;
    if (path === undefined) {
      throw new UserError(`${this.owner} names no dataset_path`, { hint: "Add it to the task's file." });
    }
    const key = JSON.stringify([path, name, kwargs]);
    const { datasets, onDownload, signal } = this.options;
    const known = datasets.get(key);
    if (known) return known;
    const { data_files: dataFiles, data_dir: dataDir, field } = kwargs as Record<string, string | undefined>;
    const onProgress = (done: number, total: number) => onDownload?.(path, done, total);
    const opening = openDataset(path, { name, dataFiles, dataDir, field, onProgress, signal });
    opening.catch(() => {});
    datasets.set(key, opening);
    return opening;
  }
}
