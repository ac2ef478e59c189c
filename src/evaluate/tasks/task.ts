/** One task, ready to run: its rows, the requests that it makes of a model, and the scores of the answers. */
import { basename } from "node:path";
import { openDataset, splitNamed } from "../../data/dataset";
import type { Row, Rows } from "../../data/rows";
import type { Splits } from "../../data/splits";
import { ExitCode, UserError } from "../../errors";
import { breathe } from "../../macrotask";
import { PythonRandom } from "../../mersenne";
import { type Aggregation, aggregationNamed } from "./aggregate";
import { type FewshotSampler, fewshotSampler } from "./fewshot";
import { choiceField, type Field, guarded, questionField, targetField, textField, textOf } from "./fields";
import { type FilterChain, filterChain } from "./filters";
import { type Metric, metricsOf } from "./metrics";
import { type PortContext, type ProcessDocs, type ProcessResults, portOf } from "./ports";
import { type ChatTurn, chatOf, plainText, type Turn, turnsOf } from "./prompt";
import { type Likelihood, type Scores, scoreChoices, scoreLikelihood, scoreRolling, scoreText } from "./score";
import type { TaskSource } from "./select-tasks";
import { type OutputType, readTaskConfig, type TaskConfig } from "./task-config";
import { Doc } from "./task-template";
import { PythonFunction } from "./task-yaml";

/** What a model is asked for. */
export type Request =
  | { type: "loglikelihood"; context: string; continuation: string }
  | { type: "loglikelihood_rolling"; text: string }
  | { type: "generate_until"; context: string; options: Record<string, unknown> };

/** A chat as one text; `begun`: its last turn goes on. */
export type RenderChat = (chat: ChatTurn[], begun: boolean) => string;

export interface TaskOptions extends PortContext {
  /** Seed of the choice of examples. */
  fewshotSeed: number;
  /** How many examples, in place of the task's own number; tasks that have 0 keep it. */
  numFewshot?: number;
  /** Opened datasets, for tasks that share one. */
  datasets: Map<string, Promise<Splits>>;
  onDownload?: (dataset: string, done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface PromptOptions {
  /** Lays prompts out as chats. */
  renderChat?: RenderChat;
  /** Examples as turns of their own. */
  asMultiturn: boolean;
}

/** How to read a row as a question: the task's own way, or that of its examples. */
interface Reading {
  question: Field;
  target: Field;
  choices: ((doc: Doc) => string[]) | null;
  genPrefix: (doc: Doc) => string;
  targetDelimiter: string;
  fewshotDelimiter: string;
}

interface Parts {
  config: TaskConfig;
  docs: readonly Doc[];
  own: Reading;
  examples: Reading;
  sampler: FewshotSampler;
  description: (doc: Doc) => string;
  metrics: readonly Metric[];
  filters: readonly FilterChain[];
  processResults: ProcessResults | null;
}

export class Task {
  readonly type: OutputType;
  readonly numFewshot: number;
  readonly #parts: Parts;
  /** The first row's question is the place of its answer among several contexts. */
  readonly #hasManyInputs: boolean;
  readonly #hasManyTargets: boolean;

  private constructor(
    readonly name: string,
    readonly path: string,
    parts: Parts,
    numFewshot: number,
  ) {
    this.#parts = parts;
    this.type = parts.config.output_type ?? "generate_until";
    this.numFewshot = numFewshot;
    const [first] = parts.docs;
    const target = first && parts.own.target(first);
    this.#hasManyTargets = Array.isArray(target) && target.length > 0;
    this.#hasManyInputs =
      parts.own.choices !== null && first !== undefined && typeof parts.own.question(first) === "number";
  }

  /** @throws UserError for a file that cannot be used, and data that is not there or does not fit */
  static async open(source: TaskSource, options: TaskOptions): Promise<Task> {
    const { name, path } = source;
    const { config, owner, filters, metrics, processResults } = await checkTask(source);
    const data = new TaskData(config, owner, options);
    const numFewshot = config.num_fewshot === 0 ? 0 : (options.numFewshot ?? config.num_fewshot ?? 0);
    const pool = await data.examples(numFewshot);
    const docs = await data.evaluated();
    if (docs.length === 0) throw new UserError(`${owner} has no rows`, { hint: "Check its dataset." });
    const columns = new Set(Object.keys(docs[0]!.row));
    const own = await readingOf(config, config, columns, owner);
    const fewshot = config.fewshot_config ?? {};
    const inherited = Object.fromEntries(Object.entries(fewshot).filter(([, value]) => value !== undefined));
    const examples = await readingOf({ ...config, ...inherited }, config, columns, owner);
    const sampler = fewshotSampler(samplerName(config, owner), pool, new PythonRandom(options.fewshotSeed), owner);
    const description = await textField(config.description, {
      owner: `${owner}: description`,
      columns: new Set(columns),
      hasChoices: false,
    });
    const parts = { config, docs, own, examples, sampler, description, metrics, filters, processResults };
    return new Task(name, path, parts, numFewshot);
  }

  get config(): TaskConfig {
    return this.#parts.config;
  }

  get docs(): readonly Doc[] {
    return this.#parts.docs;
  }

  get metrics(): readonly Metric[] {
    return this.#parts.metrics;
  }

  /** How a metric's scores become a figure; a mean where the task does not say. */
  aggregationOf(metric: string): Aggregation {
    return this.metrics.find(({ name }) => name === metric)?.aggregation ?? aggregationNamed("mean")!;
  }

  get filters(): readonly FilterChain[] {
    return this.#parts.filters;
  }

  get owner(): string {
    return `the task ${this.name} (${basename(this.path)})`;
  }

  /** A row's right answer as Python prints it. */
  targetText(doc: Doc): string {
    return textOf(this.#goldText(doc, this.#parts.own.target(doc)));
  }

  /** The requests of the first `limit` rows, in their order. */
  async requests(limit: number, options: PromptOptions): Promise<Request[][]> {
    const requests: Request[][] = [];
    for (const doc of this.docs.slice(0, limit)) {
      requests.push(this.#requestsOf(doc, this.contexts(doc, options), options));
      await breathe();
    }
    return requests;
  }

  /** The prompt of a row; several where its choices stand in the question. Draws examples. */
  contexts(doc: Doc, { renderChat, asMultiturn }: PromptOptions): string | string[] {
    const { own, examples, sampler, description, config } = this.#parts;
    const turns: Turn[] = [];
    const system = description(doc);
    if (system !== "") turns.push({ role: "system", content: system, delimiter: "" });
    if (this.numFewshot > 0) {
      // As in the harness, where neither a split for examples nor a test split is named they are the same.
      const split = config.fewshot_config?.split ?? config.fewshot_split;
      const asked = split === config.test_split ? doc : null;
      for (const example of sampler(this.numFewshot, asked)) turns.push(...this.#exampleTurns(example, examples));
    }
    const genPrefix = own.genPrefix(doc);
    const render = (last: Turn[]) => {
      const whole = [...turns, ...last];
      return renderChat ? renderChat(chatOf(whole, asMultiturn), genPrefix !== "") : plainText(whole);
    };
    const { targetDelimiter } = own;
    if (this.#hasManyInputs) {
      const choices = own.choices!(doc);
      return choices.map((question) =>
        render(turnsOf({ question, genPrefix, targetDelimiter: "", fewshotDelimiter: "" })),
      );
    }
    const question = this.#text(own.question(doc), "doc_to_text");
    return render(turnsOf({ question, genPrefix, targetDelimiter, fewshotDelimiter: "" }));
  }

  #exampleTurns(doc: Doc, reading: Reading): Turn[] {
    const { question: read, target, choices: list, targetDelimiter, fewshotDelimiter } = reading;
    const choices = list?.(doc) ?? null;
    const asked = read(doc);
    const genPrefix = reading.genPrefix(doc);
    const shared = { genPrefix, targetDelimiter, fewshotDelimiter };
    if (this.#hasManyInputs) {
      const question = this.#text(choices?.[Number(asked)], "doc_to_text");
      return turnsOf({ question, answer: this.#answer(target(doc), null), ...shared });
    }
    return turnsOf({
      question: this.#text(asked, "doc_to_text"),
      answer: this.#answer(target(doc), choices),
      ...shared,
    });
  }

  #answer(target: unknown, choices: readonly string[] | null): string | undefined {
    if (target === null || target === undefined || target === "") return undefined;
    if (choices && (typeof target === "number" || typeof target === "boolean")) {
      return this.#text(choices.at(Number(target)), "doc_to_target");
    }
    return this.#text(Array.isArray(target) ? target[0] : target, "doc_to_target");
  }

  #text(value: unknown, key: string): string {
    if (typeof value === "string") return value;
    throw new UserError(`${this.owner}: ${key} gives ${JSON.stringify(value) ?? "nothing"}, where a text is needed`, {
      hint: "Check the column or the template, and doc_to_choice where it is the place of a choice.",
    });
  }

  #requestsOf(doc: Doc, contexts: string | string[], { renderChat }: PromptOptions): Request[] {
    const { own, config } = this.#parts;
    const ask = (context: string, continuation: string): Request => ({ type: "loglikelihood", context, continuation });
    switch (this.type) {
      case "loglikelihood":
        return [ask(contexts as string, this.#text(own.target(doc), "doc_to_target"))];
      case "loglikelihood_rolling":
        return [{ type: "loglikelihood_rolling", text: this.#text(own.target(doc), "doc_to_target") }];
      case "generate_until":
        return [{ type: "generate_until", context: contexts as string, options: generationOptions(config) }];
      case "multiple_choice": {
        const keeps = !renderChat || (config.gen_prefix && !/\s$/.test(config.gen_prefix));
        const delimiter = keeps ? own.targetDelimiter : "";
        const choices = own.choices!(doc);
        const requests = Array.isArray(contexts)
          ? contexts.map((context) => ask(context, delimiter + textOf(own.target(doc))))
          : choices.map((choice) => ask(contexts, delimiter + choice));
        if (!this.metrics.some(({ name }) => name === "acc_mutual_info")) return requests;
        return [...requests, ...choices.map((choice) => ask("", delimiter + choice))];
      }
    }
  }

  /** A row's scores from its answers, which filters have been through. */
  score(doc: Doc, answers: readonly unknown[]): Scores {
    const { own, metrics, processResults } = this.#parts;
    if (processResults) return guarded(`${this.owner}: process_results`, () => processResults(doc.row, answers));
    switch (this.type) {
      case "loglikelihood":
        return scoreLikelihood(answers[0] as Likelihood, metrics);
      case "loglikelihood_rolling":
        return scoreRolling(answers[0] as number, this.#text(own.target(doc), "doc_to_target"), metrics);
      case "multiple_choice": {
        const gold = this.#hasManyInputs ? own.question(doc) : own.target(doc);
        const question = { choices: own.choices!(doc), gold, hasManyTargets: this.#hasManyTargets };
        return scoreChoices(answers as Likelihood[], question, metrics);
      }
      case "generate_until": {
        const target = own.target(doc);
        const gold = own.choices ? own.choices(doc).at(Number(target)) : this.#goldText(doc, target);
        return scoreText(answers[0], gold, this.#hasManyTargets, metrics, this.owner);
      }
    }
  }

  /** Numbers as Python prints them: a column of floats with ".0". */
  #goldText(doc: Doc, target: unknown): unknown {
    const { doc_to_target: name } = this.config;
    return typeof target === "number" && typeof name === "string" && Object.hasOwn(doc.row, name)
      ? doc.text(name)
      : target;
  }
}

interface CheckedTask extends Pick<Parts, "config" | "metrics" | "filters" | "processResults"> {
  /** What the task is called in messages. */
  owner: string;
}

/** What can be said of a task before its data is opened. @throws UserError for one that cannot be run */
export async function checkTask({ name, path, config: given }: TaskSource): Promise<CheckedTask> {
  const config = readTaskConfig(given, path);
  const owner = `the task ${name} (${basename(path)})`;
  refuse(config, owner);
  for (const key of functionKeys) {
    for (const [place, keys] of [["", config] as const, ["fewshot_config.", config.fewshot_config ?? {}] as const]) {
      const value = (keys as Record<string, unknown>)[key];
      if (value instanceof PythonFunction) await portOf(value, `${owner}: ${place}${key}`);
    }
  }
  const filters = (config.filter_list ?? [{ name: "none", filter: [{ function: "take_first" }] }]).map((chain) =>
    filterChain(chain.name, chain.filter, owner),
  );
  const metrics = await metricsOf(config, config.output_type ?? "generate_until", owner);
  samplerName(config, owner);
  const processResults =
    config.process_results instanceof PythonFunction
      ? ((await portOf(config.process_results, `${owner}: process_results`)) as ProcessResults)
      : null;
  return { config, owner, filters, metrics, processResults };
}

/** Keys that may name a function. */
const functionKeys = ["process_docs", "doc_to_text", "doc_to_target", "doc_to_choice", "samples"];

/** @throws UserError for what mlxlm has not */
function refuse(config: TaskConfig, owner: string): void {
  const lacks = (problem: string) =>
    new UserError(`${owner} ${problem}`, { code: ExitCode.notFound, hint: "Take another task." });
  if (config.doc_to_image !== undefined || config.doc_to_audio !== undefined) throw lacks("needs images or sounds");
  if (config.custom_dataset) throw lacks(`makes its dataset by ${config.custom_dataset}, which is Python`);
  if (config.use_prompt) throw lacks("takes its prompts from promptsource (use_prompt), which mlxlm has not");
  if (config.unsafe_code) throw lacks("runs the code that the model writes, which mlxlm never does");
  if (typeof config.process_results === "string") throw lacks("names process_results as a text");
  if (config.output_type === "multiple_choice" && config.doc_to_choice === undefined) {
    throw new UserError(`${owner} is multiple_choice without doc_to_choice`, { hint: "Add it to the task's file." });
  }
}

function samplerName({ fewshot_config: fewshot }: TaskConfig, owner: string): string {
  const { sampler = "default" } = fewshot ?? {};
  if (typeof sampler === "string") return sampler;
  throw new UserError(`${owner}: fewshot_config.sampler is ${sampler}, a class in Python, which mlxlm cannot run`, {
    code: ExitCode.notFound,
    hint: "Take default or first_n.",
  });
}

const generationDefaults = { temperature: 0, do_sample: false, max_gen_toks: 256 };

function generationOptions({ generation_kwargs: given, fewshot_delimiter: delimiter = "\n\n" }: TaskConfig) {
  return { ...(given ?? generationDefaults), ...(given?.until === undefined && { until: [delimiter] }) };
}

async function readingOf(
  keys: TaskConfig,
  { doc_to_choice: taskChoices }: TaskConfig,
  columns: ReadonlySet<string>,
  owner: string,
): Promise<Reading> {
  const options = (key: string) => ({ owner: `${owner}: ${key}`, columns, hasChoices: taskChoices !== undefined });
  const {
    doc_to_choice: choices,
    target_delimiter: targetDelimiter = " ",
    fewshot_delimiter: fewshotDelimiter = "\n\n",
  } = keys;
  return {
    question: await questionField(keys.doc_to_text ?? "", options("doc_to_text")),
    target: await targetField(keys.doc_to_target ?? "", options("doc_to_target")),
    choices: choices === undefined ? null : await choiceField(choices, options("doc_to_choice")),
    genPrefix: await textField(keys.gen_prefix, options("gen_prefix")),
    targetDelimiter,
    fewshotDelimiter,
  };
}

const processedRows = new WeakMap<Rows, Map<string, readonly Row[]>>();

/** A task's dataset: the rows to evaluate, and those that examples come from. */
class TaskData {
  constructor(
    private readonly config: TaskConfig,
    private readonly owner: string,
    private readonly options: TaskOptions,
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
