/** Tasks from end to end: their rows are opened, a model answers, the answers are scored. */
import { breathe } from "../macrotask";
import { checkTask } from "./tasks/check-task";
import type { Answer, Request } from "./tasks/request";
import { type Results, resultsOf, type ScoredTask } from "./tasks/results";
import { type Sample, sampleOf } from "./tasks/samples";
import type { Selection } from "./tasks/select-tasks";
import { Task, type TaskOptions } from "./tasks/task";
import type { PromptOptions } from "./tasks/task-requests";

export interface RunOptions extends PromptOptions {
  /** Rows of each task. */
  limit?: number;
  /** Samples drawn for a standard error that has no formula. */
  bootstraps?: number;
  /** What is known of each row is kept. */
  keepsSamples?: boolean;
  signal?: AbortSignal;
}

export interface Evaluation extends Results {
  /** By task, where they were asked for. */
  samples?: Record<string, Sample[]>;
}

/** Answers all requests, in their order; null where it was interrupted. */
export type AnswerAll = (requests: readonly Request[]) => Promise<Answer[] | null>;

/** The harness's number of bootstrap samples. */
const defaultBootstraps = 100_000;

/**
 * Opens tasks and their data, after a look at all of them: one that cannot be run ends it before anything is read.
 * @returns null where it was interrupted
 * @throws UserError for a task or data that cannot be used
 */
export async function openTasks(selection: Selection, options: TaskOptions): Promise<Task[] | null> {
  const sources = [...selection.tasks.values()];
  for (const source of sources) await checkTask(source);
  const tasks: Task[] = [];
  for (const source of sources) {
    if (options.signal?.aborted) return null;
    tasks.push(await Task.open(source, options));
  }
  return tasks;
}

/**
 * Asks the model, scores its answers.
 * @returns null where it was interrupted
 * @throws UserError for a row that does not fit its task
 */
export async function runTasks(
  tasks: readonly Task[],
  selection: Selection,
  answerAll: AnswerAll,
  options: RunOptions,
): Promise<Evaluation | null> {
  const { limit = Number.POSITIVE_INFINITY, bootstraps = defaultBootstraps, signal } = options;
  const opened: { task: Task; requests: Request[][] }[] = [];
  for (const task of tasks) {
    if (signal?.aborted) return null;
    opened.push({ task, requests: await task.requests(limit, options) });
  }
  const asked = opened.flatMap(({ task, requests }) =>
    requests.flat().flatMap((request) => Array<Request>(task.config.repeats ?? 1).fill(request)),
  );
  const answers = await answerAll(asked);
  if (!answers) return null;

  const scored = new Map<string, ScoredTask>();
  const samples: Record<string, Sample[]> = {};
  let at = 0;
  for (const { task, requests } of opened) {
    const repeats = task.config.repeats ?? 1;
    const responses = requests.map((row) =>
      row.map(() => {
        at += repeats;
        return answers.slice(at - repeats, at);
      }),
    );
    const kept: Sample[] = [];
    const scores = await scoresOf(task, requests, responses, options.keepsSamples ? kept : null);
    scored.set(task.name, { task, scores });
    samples[task.name] = kept;
  }
  const results = await resultsOf(scored, selection, bootstraps);
  return options.keepsSamples ? { ...results, samples } : results;
}

async function scoresOf(
  task: Task,
  requests: readonly Request[][],
  responses: readonly Answer[][][],
  samples: Sample[] | null,
): Promise<Map<string, Map<string, unknown[]>>> {
  const scores = new Map<string, Map<string, unknown[]>>();
  for (const filter of task.filters) {
    const byMetric = new Map<string, unknown[]>();
    scores.set(filter.name, byMetric);
    for (const [i, row] of responses.entries()) {
      const doc = task.docs[i]!;
      const filtered = row.map((responsesOfOne) => filter.apply(responsesOfOne, doc.row));
      const own = task.score(doc, filtered);
      for (const [metric, score] of Object.entries(own)) {
        const items = byMetric.get(metric);
        if (items) items.push(score);
        else byMetric.set(metric, [score]);
      }
      const answered = { task, id: i, requests: requests[i]!, responses: row, filtered };
      samples?.push(sampleOf({ ...answered, filter: filter.name, scores: own }));
      await breathe();
    }
  }
  return scores;
}
