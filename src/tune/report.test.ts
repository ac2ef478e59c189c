/** What people and other programs get to see of a training: lines, a picture, logs. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { curveSvg, drawable, type Point, ticks } from "./curve";
import { datasetFacts } from "./data";
import { dataLines, headerLines, ReportLines, stepNote, testLine } from "./report-lines";
import { logPaths, RunLog } from "./run-log";
import { resolveSettings } from "./settings";
import type { TrainingEvent } from "./trainer";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-report-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const trained = (iteration: number, loss: number): TrainingEvent => ({
  type: "train",
  iteration,
  loss,
  learning_rate: 1e-5,
  iterations_per_second: 2,
  tokens_per_second: 1234.5,
  trained_tokens: 12_345,
  peak_memory: 1.5,
});

describe("lines", () => {
  test("of events are mlx-lm's", () => {
    const lines = new ReportLines();
    const events: TrainingEvent[] = [
      { type: "val", iteration: 0, loss: 3.25, time: 1.234 },
      trained(10, 2.5),
      trained(20, 2.75),
      { type: "saved", iteration: 20, path: "a/0000020_adapters.safetensors" },
      { type: "saved", iteration: 20, path: "a/adapters.safetensors" },
    ];
    expect(events.map((event) => lines.lineOf(event))).toEqual([
      "     1    val 3.250    1.23s",
      "    10    2.500 ▼    1,235     12.3k",
      "    20    2.750 ▲    1,235     12.3k",
      "  save  0000020_adapters.safetensors",
      null,
    ]);
  });

  test("of a run, a step, a test", () => {
    const lines = headerLines(resolveSettings({ model: "m", num_layers: 4, learning_rate: 3e-4, iters: 1500 }));
    expect(lines).toContain("  type            lora · 4 layers · rank 8");
    expect(lines).toContain("  optimizer       adam · lr 3.0e-04");
    expect(lines).toContain("  batch · iters   4 · 1,500");
    const scheduled = resolveSettings({ lr_schedule: { name: "cosine_decay", arguments: [1e-5, 10] } });
    expect(headerLines(scheduled)).toContain("  optimizer       adam · lr cosine_decay");
    const figures = { loss: 1.23456, tokens_per_second: 2345.6, peak_memory: 0.987 };
    expect(stepNote(figures)).toBe("loss 1.235  2,346 tok/s  0.99 GB");
    expect(testLine({ loss: 1, perplexity: Math.E })).toBe("Test loss 1.000, Test ppl 2.718.");
  });

  test("of a dataset: its lengths, what is cut, what teaches nothing", () => {
    const lengths = [10, 20, 40, 50, 60, 90];
    const dataset = {
      length: 6,
      at: (i: number) => ({ tokens: new Int32Array(lengths[i]!), offset: i === 5 ? 64 : 0 }),
      where: String,
    };
    expect(dataLines("train", datasetFacts(dataset, 64), 64)).toEqual([
      "  train   6 rows, 270 tokens: 10 to 90 a row, 50 in the middle",
      "          up to  32  ████████████████          2",
      "          up to  64  ████████████████████████  3",
      "          up to 128  ████████                  1",
      "          1 rows are cut to 64 tokens, which loses 9.6 % of all tokens: --max-seq-length",
      "          1 rows teach nothing: their prompts alone are that long",
    ]);
    const narrow = dataLines("train", datasetFacts(dataset, 64), 64, 40).filter((line) => line.includes("█"));
    expect(narrow.length).toBeGreaterThan(0);
    expect(narrow.filter((line) => line.length > 40)).toEqual([]);
    expect(dataLines("valid", datasetFacts({ ...dataset, length: 2 }, 64), 64).length).toBe(2);
  });
});

describe("the picture", () => {
  test("marks are round numbers within the axis", () => {
    expect(ticks(0, 100)).toEqual([0, 20, 40, 60, 80, 100]);
    expect(ticks(1.23, 3.91)).toEqual([2, 3]);
    expect(ticks(0.001, 0.0044)).toEqual([0.001, 0.002, 0.003, 0.004]);
    for (const [least, most] of [
      [-5, 5],
      [1e-9, 2e-9],
      [7, 7.000001],
      [0, 1e12],
    ] as const) {
      const marks = ticks(least, most);
      expect(marks.length).toBeGreaterThan(1);
      expect(marks.length).toBeLessThan(8);
      expect(marks.every((mark) => mark >= least - 1e-12 && mark <= most)).toBe(true);
    }
  });

  test("has both lines, every point inside the frame, and the title as text", () => {
    const train: Point[] = Array.from({ length: 30 }, (_, i) => [i * 10 + 10, 3 / (i + 1)]);
    const svg = curveSvg(
      {
        train,
        val: [
          [0, 4],
          [150, 1],
          [300, Number.NaN],
        ],
      },
      'a <b> & "c"',
    )!;
    expect(svg).toContain("<title>a &lt;b&gt; &amp; &quot;c&quot;</title>");
    const [line] = /class="line train" d="(M[^"]*L[^"]*)"/.exec(svg)!.slice(1);
    const points = line!
      .split(/[ML]/)
      .slice(1)
      .map((pair) => pair.split(" ").map(Number) as [number, number]);
    expect(points.length).toBe(30);
    expect(points.every(([x, y]) => x >= 64 && x <= 776 && y >= 40 && y <= 372)).toBe(true);
    expect(points.every(([x, y], i) => i === 0 || (x > points[i - 1]![0] && y > points[i - 1]![1]))).toBe(true);
    expect(svg.match(/<circle/g)!.length).toBe(2);
    expect(svg).not.toContain("NaN");
  });

  test("of nothing is none; of one loss there is one", () => {
    expect(curveSvg({ train: [], val: [] }, "t")).toBeNull();
    expect(curveSvg({ train: [[1, Number.NaN]], val: [] }, "t")).toBeNull();
    expect(curveSvg({ train: [[5, 2]], val: [] }, "t")).not.toMatch(/NaN|Infinity/);
    expect(curveSvg({ train: [[5, 0]], val: [[5, 0]] }, "t")).not.toMatch(/NaN|Infinity/);
  });

  test("of very many losses stays small", () => {
    const train: Point[] = Array.from({ length: 300_000 }, (_, i) => [i, 1 / (i + 1)]);
    expect(drawable(train).length).toBeLessThanOrEqual(2001);
    expect(drawable(train).at(-1)).toEqual(train.at(-1)!);
    expect(curveSvg({ train, val: [] }, "t")!.length).toBeLessThan(60_000);
  });
});

describe("logs", () => {
  const settings = (adapter_path: string) => resolveSettings({ adapter_path, project_name: "p" });
  const records = (path: string) =>
    readFileSync(path, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));

  test("are where the services' clients would have them", () => {
    expect(logPaths({ report_to: null, adapter_path: "a" })).toEqual([]);
    expect(logPaths({ report_to: " WandB ,swanlab,", adapter_path: "x/run/" })).toEqual([
      "x/run/wandb/run.jsonl",
      "x/run/swanlog/run.jsonl",
    ]);
    expect(() => logPaths({ report_to: "tensorboard", adapter_path: "a" })).toThrow('no service "tensorboard"');
    expect(() => logPaths({ report_to: "constructor", adapter_path: "a" })).toThrow("no service");
  });

  test("have mlx-lm's names, and a training that goes on drops what it will do again", async () => {
    const path = join(scratch, "a/wandb/a.jsonl");
    const first = new RunLog([path], settings(join(scratch, "a")), { iteration: 0 });
    first.add({ type: "val", iteration: 0, loss: 4, time: 2 });
    for (const iteration of [1, 2, 3]) first.add(trained(iteration, 3));
    first.add({ type: "saved", iteration: 3, path: "x" });
    expect(await first.end()).toBeNull();
    const { type: _, loss: __, ...rest } = trained(2, 3) as Extract<TrainingEvent, { type: "train" }>;
    const [head, val, one, two] = records(path);
    expect(head).toMatchObject({ project: "p", name: "a", config: { batch_size: 4 } });
    expect(val).toEqual({ iteration: 0, val_loss: 4, val_time: 2 });
    expect([one.train_loss, two]).toEqual([3, { ...rest, train_loss: 3 }]);

    writeFileSync(path, `${readFileSync(path, "utf8")}{"iteration": 4, "tr`);
    const second = new RunLog([path], settings(join(scratch, "a")), { iteration: 2 });
    second.add(trained(3, 2.5));
    expect(await second.end()).toBeNull();
    expect(
      records(path)
        .slice(1)
        .map(({ iteration, train_loss }) => [iteration, train_loss]),
    ).toEqual([
      [0, undefined],
      [1, 3],
      [2, 3],
      [3, 2.5],
    ]);
  });

  test("that cannot be written end no training", async () => {
    mkdirSync(join(scratch, "b/wandb/b.jsonl"), { recursive: true });
    const log = new RunLog([join(scratch, "b/wandb/b.jsonl")], settings(join(scratch, "b")), { iteration: 0 });
    log.add(trained(1, 3));
    expect(await log.end()).toBeInstanceOf(Error);
  });
});
