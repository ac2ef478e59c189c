/**
 * Requests a second of multiple choice beside mlx-lm's, in turn: the tests' tasks, whose examples all questions share
 * (local_mmlu), or which have none (local_hellaswag).
 *
 * bun bench/evaluate.ts --python PYTHON [--model FOLDER] [--limit 10] [--rounds 3] [TASK …]
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { loadModel } from "../src/convert/load";
import { demoFolder } from "../src/demo/folder";
import { Answerer } from "../src/evaluate/answers";
import { openTasks } from "../src/evaluate/run-tasks";
import type { Answer, Likelihood } from "../src/evaluate/tasks/request";
import { selectTasks } from "../src/evaluate/tasks/select-tasks";
import { indexTasks } from "../src/evaluate/tasks/task-index";
import { PythonRandom } from "../src/mersenne";
import { greedy } from "../src/sample";
import { median } from "./median";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: "string", default: "python3" },
    model: { type: "string", default: demoFolder() },
    limit: { type: "string", default: "10" },
    rounds: { type: "string", default: "3" },
  },
});
const names = positionals.length > 0 ? positionals : ["local_mmlu", "local_hellaswag"];
process.chdir(join(import.meta.dir, ".."));

const { model, tokenizer } = await loadModel(values.model);
const answerer = new Answerer(model, tokenizer, { batchSize: 8, usesChatTemplate: false, sampler: greedy });
const index = await indexTasks(["test/fixtures/evaluate/tasks"]);
const scratch = mkdtempSync(join(tmpdir(), "mlxlm-bench-"));

function theirs(path: string): { seconds: number; answers: number[] } {
  const { stdout, success, stderr } = Bun.spawnSync([values.python, "bench/evaluate.py", values.model, path]);
  if (!success) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

for (const name of names) {
  const selection = await selectTasks(index, [name]);
  const tasks = await openTasks(selection, { random: new PythonRandom(1), fewshotSeed: 1, datasets: new Map() });
  const asked = (
    await Promise.all(tasks!.map((task) => task.requests(Number(values.limit), { asMultiturn: false })))
  ).flat(2);
  const requests = asked.filter((request) => request.type === "loglikelihood");
  const path = join(scratch, `${name}.json`);
  writeFileSync(path, JSON.stringify(requests.map(({ context, continuation }) => [context, continuation])));
  await answerer.answer(requests.slice(0, 2));
  const ratios: number[] = [];
  for (let round = 0; round < Number(values.rounds); round++) {
    const began = performance.now();
    const answers = (await answerer.answer(requests)) as Answer[];
    const seconds = (performance.now() - began) / 1000;
    const other = theirs(path);
    const apart = Math.max(...answers.map((answer, i) => Math.abs((answer as Likelihood)[0] - other.answers[i]!)));
    ratios.push(other.seconds / seconds);
    const [ours, their] = [seconds, other.seconds].map((one) => (requests.length / one).toFixed(1));
    console.log(
      `${name}: ${requests.length} requests, ${ours}/s beside ${their}/s; at most ${apart.toExponential(1)} apart`,
    );
  }
  console.log(`${name}: ${median(ratios).toFixed(2)} times mlx-lm's speed`);
}
rmSync(scratch, { recursive: true, force: true });
