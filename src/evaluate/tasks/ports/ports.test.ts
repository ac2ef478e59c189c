/** Functions written anew against the harness's own. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Row } from "../../../data/rows";
import { PythonRandom } from "../../../mersenne";
import { PythonFunction } from "../task-yaml";
import { portOf } from "./index";

const path = join(import.meta.dir, "../../../../test/fixtures/evaluate/ports.json");
const calls: { module: string; name: string; rows: Row[]; results: unknown[] }[] = JSON.parse(
  readFileSync(path, "utf8"),
);

const port = (module: string, name: string) =>
  portOf(new PythonFunction(`${module.split("/").at(-1)}.${name}`, `/harness/tasks/${dirname(module)}`), "a test");

const isWhole = (name: string) => name.startsWith("process_") && !name.startsWith("process_results");

describe("ports", () => {
  test.each(calls.map((call) => [call.module, call.name, call] as const))("%s.%s", async (module, name, call) => {
    const { rows, results } = call;
    const run = (await port(module, name)) as (...args: unknown[]) => unknown;
    if (isWhole(name)) return expect(run(rows, { random: new PythonRandom(7) })).toEqual(results);
    const likelihoods = [-1.5, -0.25, -3].map((score) => [score, false]);
    const answers = name === "process_results_mc2" ? likelihoods : [-12.5];
    for (const [i, row] of rows.entries()) {
      const result = name.startsWith("process_results") ? run(row, answers) : run(row);
      if (name !== "process_results_mc2") expect(result).toEqual(results[i]);
      else expect((result as { acc: number }).acc).toBeCloseTo((results[i] as { acc: number }).acc, 12);
    }
  });

  test.each(calls.map((call) => [call.module, call.name] as const))(
    "%s.%s says what rows lack",
    async (module, name) => {
      const run = (await port(module, name)) as (...args: unknown[]) => unknown;
      const row = { other: 1 };
      const call = () => (isWhole(name) ? run([row], { random: new PythonRandom(7) }) : run(row, []));
      // A filter by a column finds no rows without it.
      if (/^process_(?:law|computer)/.test(name)) expect(call()).toEqual([]);
      else expect(call).toThrow(/the column "|the answer is|no gap/);
    },
  );

  test("functions of like modules that are others are refused", () => {
    const other = portOf(new PythonFunction("utils.doc_to_text", "/harness/tasks/llama3/instruct/mmlu_pro"), "it");
    expect(other).rejects.toThrow("it is !function utils.doc_to_text, a function in Python");
    expect(port("hellaswag/utils", "toString")).rejects.toThrow("a function in Python");
  });
});
