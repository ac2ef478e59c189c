/** `mlxlm evaluate`: what it prints and writes, how it goes on after an end, what it says to bad tasks and data. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const root = join(import.meta.dir, "..");
const tasks = join(root, "test/fixtures/evaluate/tasks");
const main = join(root, "cmd/main.ts");
const scratch = mkdtempSync(join(tmpdir(), "mlxlm-evaluate-"));

/** A machine without the harness. */
const env = {
  ...process.env,
  PATH: "/usr/bin:/bin",
  VIRTUAL_ENV: "",
  CONDA_PREFIX: "",
  HOME: scratch,
  HF_HUB_OFFLINE: "1",
};

afterAll(() => rmSync(scratch, { recursive: true }));

function start(...words: string[]) {
  const command = [process.execPath, main, "evaluate", ...words];
  return Bun.spawn(command, { cwd: root, stdout: "pipe", stderr: "pipe", env });
}

async function evaluate(...words: string[]) {
  const child = start(...words);
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, problems, code };
}

const demo = ["--model", "demo", "--include-path", tasks, "--no-apply-chat-template"];
const into = (name: string) => ["--output-dir", join(scratch, name)];

describe("results", () => {
  test("a table on stdout; mlx-lm's file, and one of samples a task", async () => {
    const words = ["--tasks", "local_boolq", "local_lambada", "--limit", "2", "--num-shots", "1", "--log-samples"];
    const { out, code, problems } = await evaluate(...demo, ...into("files"), ...words);
    expect(problems).toContain("Written: ");
    expect(code).toBe(0);
    const lines = out.split("\n");
    expect(lines[0]).toBe("Results:");
    expect(lines[1]).toMatch(/^\| +Tasks +\|Version\|Filter\|n-shot\| +Metric +\| {3}\| *Value *\| {3}\| *Stderr *\|$/);
    expect(out).toMatch(/\|yes or no +\| +1\.5\|none +\| +1\|acc +\|↑ {2}\|/);
    const name = "eval_demo_0.4.13_01_local_boolq_local_lambada";
    const samples = ["local_boolq", "local_lambada"].map((task) => `${name}_samples_${task}.jsonl`);
    expect(readdirSync(join(scratch, "files")).sort()).toEqual([name, ...samples]);
    const results = JSON.parse(readFileSync(join(scratch, "files", name), "utf8"));
    expect(results.local_boolq).toMatchObject({ name: "local_boolq", alias: "yes or no", sample_len: 2 });
    expect(Object.keys(results.local_lambada)).toContain("perplexity_stderr,none");
    const rows = readFileSync(join(scratch, "files", samples[0]!), "utf8")
      .trim()
      .split("\n");
    const row = JSON.parse(rows[1]!);
    expect(rows.length).toBe(2);
    expect(row).toMatchObject({ doc_id: 1, filter: "none", metrics: ["acc"], target: expect.stringMatching(/^[01]$/) });
    expect(row.arguments.gen_args_1.arg_1).toBe(" yes");
    expect(row.resps).toEqual([
      [[expect.stringMatching(/^-\d+\.\d+$/), expect.stringMatching(/^(True|False)$/)]],
      expect.anything(),
    ]);
  });

  test("two ranks answer half of the requests each, and give what one process gives", async () => {
    const words = [
      "--tasks",
      "local_boolq",
      "local_lambada",
      "--limit",
      "3",
      "--num-shots",
      "0",
      "--batch-size",
      "1",
      "--json",
    ];
    const alone = await evaluate(...demo, ...into("alone"), ...words);
    const command = [process.execPath, main, "launch", "-n", "2", "evaluate", ...demo, ...into("ranks"), ...words];
    const child = Bun.spawn(command, { cwd: root, stdout: "pipe", stderr: "pipe", env });
    const [out, code] = await Promise.all([child.stdout.text(), child.exited]);
    expect(code).toBe(0);
    expect(JSON.parse(out).results).toEqual(JSON.parse(alone.out).results);
    expect(readdirSync(join(scratch, "ranks"))).toEqual(readdirSync(join(scratch, "alone")));
  }, 60_000);

  test("--json gives one object in the harness's schema; the chat template is on where there is one", async () => {
    const words = ["--model", "demo", "--include-path", tasks, "--tasks", "local_mmlu", "--limit", "1", "--json"];
    const { out, code } = await evaluate(...words, ...into("json"), "--num-shots", "0");
    expect(code).toBe(0);
    const found = JSON.parse(out);
    expect(found.group_subtasks.local_mmlu).toEqual(["local_mmlu::words", "local_mmlu_sums"]);
    expect(found.groups.local_mmlu["acc,none"]).toBeNumber();
    expect(found["n-samples"].local_mmlu_sums).toEqual({ original: 200, effective: 1 });
    expect(found.results.local_mmlu_sums["acc_stderr,none"]).toBe("N/A");
    expect(found.config).toMatchObject({ apply_chat_template: true, limit: 1, seed: 123 });
    expect(found.configs.local_mmlu_sums.doc_to_choice).toEqual(["A", "B", "C", "D"]);
  });

  test("texts are generated, up to --max-tokens", async () => {
    const words = ["--tasks", "local_triviaqa", "--limit", "2", "--max-tokens", "3", "--log-samples", "--json"];
    const { out, code } = await evaluate(...demo, ...into("texts"), ...words, "--temp", "1", "--top-p", "0.9");
    expect(code).toBe(0);
    const { samples, results } = JSON.parse(out);
    for (const { resps } of samples.local_triviaqa) expect(resps[0][0].length).toBeLessThan(40);
    expect(results.local_triviaqa["exact_match,remove_whitespace"]).toBeNumber();
  });

  test("--tasks list names what there is", async () => {
    const { out, code } = await evaluate(...demo, "--tasks", "list");
    expect(out.split("\n")).toContain("local_winogrande");
    expect(out.split("\n")).toContain("local_choices");
    expect(code).toBe(0);
  });
});

describe("an evaluation that was broken off", () => {
  const words = [...demo, "--tasks", "local_hellaswag", "--limit", "40"];
  const cacheOf = (name: string) => join(scratch, name, "eval_demo_0.4.13_local_hellaswag.answers.jsonl");
  const lines = (name: string) => readFileSync(cacheOf(name), "utf8").split("\n").length - 1;

  test("Ctrl-C keeps the answers, and the same command goes on from there", async () => {
    const child = start(...words, ...into("again"));
    while (!existsSync(cacheOf("again")) || lines("again") < 8) await Bun.sleep(2);
    child.kill("SIGINT");
    const [problems, code] = await Promise.all([child.stderr.text(), child.exited]);
    expect(code).toBe(130);
    const kept = lines("again");
    expect(problems).toContain(
      `Interrupted. ${kept} of 160 requests are answered; the same command goes on from there.`,
    );
    expect(kept).toBeLessThan(160);

    // A kept answer is taken as it is; one that was cut off is asked for again.
    const file = readFileSync(cacheOf("again"), "utf8").trimEnd().split("\n");
    const [key] = JSON.parse(file[0]!);
    writeFileSync(
      cacheOf("again"),
      [JSON.stringify([key, [12345, true]]), ...file.slice(1, -1), file.at(-1)!.slice(0, 9)].join("\n"),
    );
    const run = await evaluate(...words, ...into("again"), "--log-samples", "--json");
    expect(run.code).toBe(0);
    const { samples } = JSON.parse(run.out);
    const scores = samples.local_hellaswag.flatMap(({ resps }: { resps: string[][][] }) =>
      resps.map((one) => one[0]![0]),
    );
    expect(scores.length).toBe(160);
    expect(scores.filter((score: string) => score === "12345.0").length).toBe(1);
    expect(existsSync(cacheOf("again"))).toBe(false);
  }, 120_000);
});

/** Task files that go wrong. BASE stands for a task that is right, but for the keys that follow; HERE for their folder. */
// biome-ignore format: a case a line
const broken: [what: string, files: Record<string, string>, words: string[], code: number, message: RegExp][] = [
  ["YAML that is none", { "a.yaml": "task: a\ndoc_to_text: [\n" }, ["a"], 1, /a\.yaml is no task: .*line/],
  ["a missing include", { "a.yaml": "include: b.yaml\ntask: a\n" }, ["a"], 3, /b\.yaml cannot be read, which \S*a\.yaml includes/],
  ["an include of itself", { "a.yaml": "include: a.yaml\ntask: a\n" }, ["a"], 1, /a\.yaml includes itself/],
  ["a key that is unknown", { "a.yaml": "task: a\ndoc_to_txt: x\n" }, ["a"], 1, /a\.yaml: the key "doc_to_txt" is not known\n.*Did you mean doc_to_text/],
  ["a value of another kind", { "a.yaml": "task: a\nnum_fewshot: many\n" }, ["a"], 1, /a\.yaml: num_fewshot is "many"/],
  ["a task that is unknown", { "a.yaml": "task: a\n" }, ["aa"], 3, /there is no task, group or tag "aa".*\n.*Did you mean a\?/],
  ["a metric that is unknown", { "a.yaml": "BASE\nmetric_list: [{metric: exactmatch}]\n" }, ["a"], 1, /metric_list: there is no metric "exactmatch"\n.*Did you mean exact_match/],
  ["an aggregation that is unknown", { "a.yaml": "BASE\nmetric_list: [{metric: acc, aggregation: meen}]\n" }, ["a"], 1, /no aggregation "meen"\n.*Did you mean mean/],
  ["a filter that is unknown", { "a.yaml": "BASE\nfilter_list: [{name: x, filter: [{function: regexx}]}]\n" }, ["a"], 1, /filter_list, "x": there is no filter "regexx"\n.*Did you mean regex/],
  ["a pattern that is none", { "a.yaml": "BASE\nfilter_list: [{name: x, filter: [{function: regex, regex_pattern: '(a'}]}]\n" }, ["a"], 1, /the pattern "\(a" cannot be used/],
  ["a pattern without end", { "a.yaml": "BASE\nfilter_list: [{name: x, filter: [{function: regex, regex_pattern: '(x+x+)+y'}]}]\n" }, ["a"], 1, /cannot be used: it can go back without end/],
  ["a description without end", { "a.yaml": "BASE\ndescription: '{% set s = \"x\" * 900000 %}{% for i in range(9999) %}{% set y = s | length %}{% endfor %}'\n" }, ["a"], 1, /description failed: it takes too much work/],
  ["repeats without end", { "a.yaml": "BASE\nrepeats: 100000000\n" }, ["a"], 1, /repeats is 100000000: .*10000/],
  ["an include of a device", { "a.yaml": "include: /dev/zero\ntask: a\n" }, ["a"], 2, /\/dev\/zero.* is a device, not a file/],
  ["a sampler that is unknown", { "a.yaml": "BASE\nnum_fewshot: 1\nfewshot_config: {sampler: last_n}\n" }, ["a"], 1, /no sampler "last_n"/],
  ["a template that is none", { "a.yaml": "BASE\ndoc_to_text: '{{question'\n" }, ["a"], 1, /doc_to_text is no template/],
  ["a column that is missing", { "a.yaml": "BASE\ndoc_to_text: '{{questoin}}'\n" }, ["a"], 1, /doc_to_text failed: "questoin" is undefined\n.*columns question, answer/],
  ["choices that are no list", { "a.yaml": "BASE\ndoc_to_choice: question\n" }, ["a"], 1, /doc_to_choice gives "x", where a list of texts is needed/],
  ["a dataset that is missing", { "a.yaml": "BASE\ndataset_path: HERE/nothing\n" }, ["a"], 3, /there is no dataset .*nothing/],
  ["a dataset that is not in the cache", { "a.yaml": "BASE\ndataset_path: someone/something\n" }, ["a"], 3, /the dataset someone\/something is not in the cache/],
  ["a split that is missing", { "a.yaml": "BASE\ntest_split: validation\n" }, ["a"], 3, /no split "validation"; it has test/],
  ["too few rows for the examples", { "a.yaml": "BASE\nnum_fewshot: 5\n" }, ["a"], 1, /asks for 5 examples, but has only 1/],
  ["a function that mlxlm has not", { "a.yaml": "BASE\nprocess_docs: !function utils.mine\n" }, ["a"], 3, /process_docs is !function utils\.mine, a function in Python/],
  ["a class", { "a.yaml": "task: a\nclass: !function task.A\n" }, ["a"], 3, /written in Python \(class\)/],
  ["code that a model writes", { "a.yaml": "BASE\nunsafe_code: true\n" }, ["a"], 3, /runs the code that the model writes/],
  ["a group of what is not there", { "g.yaml": "group: g\ntask: [a]\n" }, ["g"], 3, /the group g names the task "a", which does not exist/],
  ["a group within itself", { "g.yaml": "group: g\ntask: [g]\n" }, ["g"], 1, /the group g contains itself/],
  ["a task that is asked for twice", { "a.yaml": "BASE", "g.yaml": "group: g\ntask: [a]\n" }, ["g", "a"], 2, /a is asked for twice: by g and by a/],
];

describe("errors name the file, the key and a way out", () => {
  const base = [
    "task: a",
    "dataset_path: HERE/data",
    "test_split: test",
    "output_type: multiple_choice",
    'doc_to_text: "{{question}}"',
    "doc_to_target: answer",
    'doc_to_choice: ["x", "y"]',
  ];

  test.each(broken)("%s", async (what, files, names, code, message) => {
    const folder = join(scratch, what.replaceAll(" ", "-"));
    const write = (name: string, text: string) => {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), text.replaceAll("HERE", folder));
    };
    write("data/test.jsonl", '{"question": "x", "answer": 0}\n');
    for (const [name, text] of Object.entries(files)) {
      const keys = text.split("\n").map((line) => line.split(":")[0]);
      write(name, text.replace(/^BASE/, base.filter((line) => !keys.includes(line.split(":")[0])).join("\n")));
    }
    const words = ["--model", "demo", "--include-path", folder, "--tasks", ...names, "--output-dir", folder];
    const run = await evaluate(...words, "--no-apply-chat-template");
    expect(run.problems).toMatch(message);
    expect(run.problems).not.toContain("internal error");
    expect(run.problems.trim().split("\n").length).toBeGreaterThan(1);
    expect(run.code).toBe(code);
  });

  test("no tasks, no model, no harness", async () => {
    expect(await evaluate("--model", "demo")).toMatchObject({
      code: 2,
      problems: expect.stringContaining("needs tasks"),
    });
    expect(await evaluate("--tasks", "a")).toMatchObject({ code: 2, problems: expect.stringContaining("--model") });
    const lost = await evaluate("--model", "demo", "--tasks", "arc_easy");
    expect(lost).toMatchObject({ code: 3, problems: expect.stringContaining("--tasks-dir FOLDER") });
    const nowhere = await evaluate("--model", "demo", "--tasks", "arc_easy", "--tasks-dir", join(scratch, "no"));
    expect(nowhere).toMatchObject({ code: 3, problems: expect.stringContaining("there is no folder") });
  });
});
