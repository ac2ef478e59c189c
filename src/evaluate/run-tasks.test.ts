/** Tasks as the harness runs them: the same questions to the letter, the same figures to every digit. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { boundBySums } from "../../test/processor";
import { type LoadedModel, loadModel } from "../convert/load";
import { demoFolder } from "../demo/folder";
import { PythonRandom } from "../mersenne";
import * as mx from "../mlx";
import { greedy } from "../sample";
import { Answerer } from "./answers";
import { renderChats } from "./chats";
import { type Evaluation, openTasks, runTasks } from "./run-tasks";
import type { Answer, Request } from "./tasks/request";
import type { Results } from "./tasks/results";
import { resultsTable } from "./tasks/results-table";
import { argumentsOf } from "./tasks/samples";
import { selectTasks } from "./tasks/select-tasks";
import { indexTasks } from "./tasks/task-index";

const root = join(import.meta.dir, "../..");
const fixtures = join(root, "test/fixtures/evaluate");

interface Case extends Results {
  options: {
    tasks: string[];
    chat: boolean;
    multiturn: boolean;
    shots: number | null;
    limit: number | null;
    draws: number;
  };
  tables: string[];
  samples: Record<string, { asked: string[]; first: unknown[][]; answers: unknown[][]; hashes: string[][] }>;
}

const digest = (text: string) => createHash("sha256").update(text).digest();
const short = (text: string) => digest(text).toString("hex").slice(0, 12);

/** The formula of test/oracle/evaluate_tasks.py: answers that only depend on the request. */
function formula(request: Request): Answer {
  const number = (...texts: string[]) => digest(texts.join("\0")).readUInt32BE(0);
  switch (request.type) {
    case "loglikelihood": {
      const n = number(request.context, request.continuation);
      return [-(n % 100003) / 20000, n % 3 === 0];
    }
    case "loglikelihood_rolling":
      return -(number(request.text) % 1000003) / 500;
    case "generate_until": {
      const [, a = "1", b = "1"] = [...request.context.matchAll(/What is (\d+) \+ (\d+)/g)].at(-1) ?? [];
      const total = Number(a) + Number(b);
      const texts = [
        ...[`${total}`, ` ${total}. `, `It is ${total}.\n#### ${total}`, `#### $${total},000`, "the answer is True."],
        ...["So the answer is False. Q", "The Answer is false", "zero!", "", `The ${total}`],
      ];
      return texts[number(request.context) % texts.length]!;
    }
  }
}

/** A long text's likelihood is so large that a float32 of it knows only three digits behind the point. */
const expectSameLikelihood = (found: number, expected: number) =>
  expect(Math.abs(found - expected)).toBeLessThan(2e-5 + 1e-6 * Math.abs(expected));

const caseOf = (name: string): Case => JSON.parse(readFileSync(join(fixtures, `tasks-${name}.json`), "utf8"));

let demo: LoadedModel;

beforeAll(async () => {
  demo = await loadModel(demoFolder());
});
afterAll(() => demo.model.dispose());

async function run(
  { options }: Case,
  answerAll: (requests: readonly Request[]) => Promise<Answer[] | null>,
): Promise<Evaluation | null> {
  const index = await indexTasks([join(fixtures, "tasks")]);
  const selection = await selectTasks(index, options.tasks);
  for (const task of selection.tasks.values()) task.config.dataset_path = join(root, String(task.config.dataset_path));
  const datasets = new Map();
  const numFewshot = options.shots ?? undefined;
  const tasks = (await openTasks(selection, {
    random: new PythonRandom(123),
    fewshotSeed: 123,
    numFewshot,
    datasets,
  }))!;
  return runTasks(tasks, selection, answerAll, {
    limit: options.limit ?? undefined,
    bootstraps: options.draws,
    renderChat: options.chat ? renderChats(demo.tokenizer) : undefined,
    asMultiturn: options.multiturn,
    keepsSamples: true,
  });
}

/** Figures but for `tolerance`, relative to them; all else as it is. */
function expectResults(found: Results, expected: Case, tolerance: number): void {
  for (const [name, figures] of Object.entries(expected.results)) {
    expect(Object.keys(found.results[name]!)).toEqual(Object.keys(figures));
    for (const [key, value] of Object.entries(figures)) {
      const ours = found.results[name]![key];
      if (typeof value !== "number" || value === 0) expect(ours).toEqual(value);
      else expect(Math.abs((ours as number) / value - 1)).toBeLessThan(tolerance);
    }
  }
  expect(Object.keys(found.results)).toEqual(Object.keys(expected.results));
  expect(Object.keys(found.groups ?? {})).toEqual(Object.keys(expected.groups ?? {}));
  for (const key of ["group_subtasks", "versions", "n-shot", "higher_is_better", "n-samples"] as const) {
    expect(found[key]).toEqual(expected[key] as never);
  }
}

/** Only what the first filter saw: a row once. */
const rowsOf = (found: Evaluation, task: string) => {
  const rows = found.samples![task]!;
  return rows.filter(({ filter }) => filter === rows[0]!.filter);
};

describe("with answers by a formula", () => {
  test.each(["plain", "whole", "chat", "multiturn"])("%s: questions and figures are the harness's", async (name) => {
    const expected = caseOf(name);
    const found = (await run(expected, async (requests) => requests.map(formula)))!;
    for (const [task, { asked, first, hashes }] of Object.entries(expected.samples)) {
      const rows = rowsOf(found, task);
      const listed = rows.map((row) => Object.values(row.arguments).map((args) => Object.values(args)));
      expect(listed[0]).toEqual(first);
      expect([task, listed.map((args) => short(JSON.stringify(args)))]).toEqual([task, asked]);
      const ours = rows.slice(0, hashes.length).map((row) => [row.doc_hash, row.prompt_hash, row.target_hash]);
      expect(ours.map((row) => row.map((hash) => hash.slice(0, 12)))).toEqual(hashes);
    }
    expectResults(found, expected, 1e-12);
    expect(resultsTable(found)).toBe(expected.tables[0]!);
    if (expected.tables[1]) expect(resultsTable(found, "groups")).toBe(expected.tables[1]);
  });
});

describe("with the demo model's answers", () => {
  test.each(["model", "model-chat"])(
    "%s: likelihoods and texts are mlx-lm's",
    async (name) => {
      const expected = caseOf(name);
      const { chat } = expected.options;
      const options = { batchSize: 8, usesChatTemplate: chat, sampler: greedy };
      const answerer = new Answerer(demo.model, demo.tokenizer, options);
      const before = mx.liveHandles();
      let answers: Answer[] = [];
      let requests: readonly Request[] = [];
      const found = (await run(expected, async (asked) => {
        requests = asked;
        answers = (await answerer.answer(asked))!;
        return answers;
      }))!;
      const theirs = Object.keys(found.samples!).flatMap((task) => expected.samples[task]!.answers.flat());
      expect(answers.length).toBe(theirs.length);
      for (const [i, answer] of answers.entries()) {
        const [ours, other] = [answer, theirs[i]!].map((one) => (Array.isArray(one) ? one : [one]));
        const what = JSON.stringify(argumentsOf(requests[i]!));
        if (typeof ours![0] === "string") expect([what, ours![0]]).toEqual([what, other![0]]);
        else if (other![0] === null) expect(ours![0]).toBe(Number.NEGATIVE_INFINITY);
        else expectSameLikelihood(ours![0] as number, other![0] as number);
        expect([what, ours![1]]).toEqual([what, other![1]]);
      }
      expectResults(found, expected, boundBySums(1e-5, 3e-5));
      expect(mx.liveHandles()).toBe(before);
    },
    60_000,
  );

  test("an interruption leaves nothing behind", async () => {
    const requests: Request[] = [" a", " b c", " d e f"].flatMap((continuation) => [
      { type: "loglikelihood", context: "One two three", continuation },
      { type: "loglikelihood", context: "One two four", continuation },
      { type: "loglikelihood_rolling", text: `Once upon a time${continuation}` },
      { type: "generate_until", context: `Once${continuation}`, options: { until: ["\n"], max_gen_toks: 9 } },
    ]);
    const shared = { batchSize: 2, usesChatTemplate: false, sampler: greedy };
    const all = await new Answerer(demo.model, demo.tokenizer, shared).answer(requests);
    const before = mx.liveHandles();
    for (const most of [0, 1, 4, 8, 10]) {
      const controller = new AbortController();
      if (most === 0) controller.abort();
      const onProgress = (done: number) => {
        if (done === most) controller.abort();
      };
      const options = { ...shared, signal: controller.signal, onProgress };
      expect(await new Answerer(demo.model, demo.tokenizer, options).answer(requests)).toBeNull();
      expect(mx.liveHandles()).toBe(before);
    }
    expect(await new Answerer(demo.model, demo.tokenizer, shared).answer(requests)).toEqual(all);
    expect(mx.liveHandles()).toBe(before);
  }, 60_000);
});
