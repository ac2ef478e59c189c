/** One task, ready to run: its rows, the requests that it makes of a model, and the scores of the answers. */
import { UserError } from "../../errors";
import { breathe } from "../../macrotask";
import { PythonRandom } from "../../mersenne";
import { type Aggregation, aggregationNamed } from "./aggregate";
import { checkTask, samplerName } from "./check-task";
import { fewshotSampler } from "./fewshot";
import { textField, textOf } from "./fields";
import type { FilterChain } from "./filters";
import type { Metric } from "./metrics";
import { readingOf } from "./reading";
import type { Request } from "./request";
import type { Scores } from "./score";
import type { TaskSource } from "./select-tasks";
import type { OutputType, TaskConfig } from "./task-config";
import { type DataOptions, TaskData } from "./task-data";
import { goldText, type TaskParts } from "./task-parts";
import { type PromptOptions, requestsOf } from "./task-requests";
import { scoresOf } from "./task-scores";
import type { Doc } from "./task-template";

export interface TaskOptions extends DataOptions {
  /** Seed of the choice of examples. */
  fewshotSeed: number;
  /** How many examples, in place of the task's own number; tasks that have 0 keep it. */
  numFewshot?: number;
}

export class Task {
  private constructor(
    readonly name: string,
    readonly path: string,
    private readonly parts: TaskParts,
  ) {}

  /** @throws UserError for a file that cannot be used, and data that is not there or does not fit */
  static async open(source: TaskSource, options: TaskOptions): Promise<Task> {
    const checked = await checkTask(source);
    const { config, owner } = checked;
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
    const target = own.target(docs[0]!);
    return new Task(source.name, source.path, {
      ...{ ...checked, docs, own, examples, sampler, numFewshot, description },
      type: config.output_type ?? "generate_until",
      hasManyInputs: own.choices !== null && typeof own.question(docs[0]!) === "number",
      hasManyTargets: Array.isArray(target) && target.length > 0,
    });
  }

  get config(): TaskConfig {
    return this.parts.config;
  }

  get docs(): readonly Doc[] {
    return this.parts.docs;
  }

  get metrics(): readonly Metric[] {
    return this.parts.metrics;
  }

  /** How a metric's scores become a figure; a mean where the task does not say. */
  aggregationOf(metric: string): Aggregation {
    return this.metrics.find(({ name }) => name === metric)?.aggregation ?? aggregationNamed("mean")!;
  }

  get filters(): readonly FilterChain[] {
    return this.parts.filters;
  }

  get type(): OutputType {
    return this.parts.type;
  }

  get numFewshot(): number {
    return this.parts.numFewshot;
  }

  /** A row's right answer as Python prints it. */
  targetText(doc: Doc): string {
    return textOf(goldText(this.parts, doc));
  }

  /** The requests of the first `limit` rows, in their order. */
  async requests(limit: number, options: PromptOptions): Promise<Request[][]> {
    const requests: Request[][] = [];
    for (const doc of this.docs.slice(0, limit)) {
      requests.push(requestsOf(this.parts, doc, options));
      await breathe();
    }
    return requests;
  }

  /** A row's scores from its answers, which filters have been through. */
  score(doc: Doc, answers: readonly unknown[]): Scores {
    return scoresOf(this.parts, doc, answers);
  }
}
