/** `mlxlm lora` from a terminal: what it prints and writes, and how it ends. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TerminalProgram } from "./terminal";

const main = join(import.meta.dir, "../cmd/main.ts");
const model = join(import.meta.dir, "fixtures/checkpoint");
const scratch = mkdtempSync(join(tmpdir(), "mlxlm-lora-"));
const data = join(scratch, "data");
afterAll(() => rmSync(scratch, { recursive: true }));

const sentences = ["the fox ran", "the dog and the fox", "a bb ccc", "far away", "the dog ran far away and the fox"];
const rowsOf = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ prompt: sentences[i % 5], completion: sentences[(i + 2) % 5] }));
const lines = (rows: readonly object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

beforeAll(() => {
  mkdirSync(data);
  writeFileSync(join(data, "train.jsonl"), lines(rowsOf(24)));
  writeFileSync(join(data, "valid.jsonl"), lines(rowsOf(9)));
  writeFileSync(join(data, "test.jsonl"), lines(rowsOf(8)));
});

const environment = { ...process.env, HF_HUB_OFFLINE: "1", NO_COLOR: "1" };

function start(words: readonly string[], shell: readonly string[] = []): Bun.Subprocess<"ignore", "pipe", "pipe"> {
  const command = [...shell, process.execPath, main, "lora", "--model", model, "--data", data, ...words];
  return Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe", env: environment, cwd: scratch });
}

async function lora(words: readonly string[], shell: readonly string[] = []) {
  const child = start(words, shell);
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, problems, code };
}

interface Event {
  type: string;
  iteration: number;
  loss: number;
  [field: string]: unknown;
}

const eventsOf = (out: string): Event[] =>
  out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

const small = ["--batch-size", "3", "--num-layers", "1", "--learning-rate", "1e-3", "--val-batches", "2"];

/** What happens to the loss, without clocks. */
const losses = (events: readonly Event[]) =>
  events
    .filter(({ type }) => type === "train" || type === "val")
    .map(({ type, iteration, loss }) => [type, iteration, loss]);

let folders = 0;
const folder = () => join(scratch, `adapters-${folders++}`);

describe("a training", () => {
  test("reports what it learns from and how it goes, and saves adapters and a picture", async () => {
    const adapters = folder();
    const words = ["--train", "--test", ...small, "--iters", "20", "--save-every", "8", "--adapter-path", adapters];
    const { out, problems, code } = await lora([...words, "--report-to", "wandb, SwanLab", "--project-name", "p"]);
    expect(code).toBe(0);
    expect(problems).toContain("train   24 rows, ");
    expect(problems).toMatch(/type\s+lora · 1 layers · rank 8/);
    expect(problems).toMatch(/Trainable parameters: [\d.]+% \([\d.]+M\/[\d.]+M\)/);
    expect(out.split("\n").map((line) => line.replace(/\d[\d.]*(,\d{3})*/g, "#").replace(/\s+/g, " "))).toEqual([
      " # val # #s",
      " save #_adapters.safetensors",
      " # # ▼ # #k",
      " save #_adapters.safetensors",
      " # val # #s",
      " # # ▼ # #k",
      "Test loss #, Test ppl #",
      "",
    ]);
    expect(readdirSync(adapters).sort()).toEqual([
      ...[
        "0000008_adapters.safetensors",
        "0000016_adapters.safetensors",
        "adapter_config.json",
        "adapters.safetensors",
      ],
      ...["curve.svg", "state", "swanlog", "wandb"],
    ]);
    expect(JSON.parse(readFileSync(join(adapters, "adapter_config.json"), "utf8"))).toMatchObject({
      fine_tune_type: "lora",
      num_layers: 1,
      lora_parameters: { rank: 8, scale: 20, dropout: 0 },
    });
    expect(readFileSync(join(adapters, "curve.svg"), "utf8")).toMatch(
      /^<svg [\s\S]*class="line train" d="M[\s\S]*<\/svg>\n$/,
    );
    const logs = ["wandb", "swanlog"].map((service) =>
      readdirSync(join(adapters, service)).map((file) => join(adapters, service, file)),
    );
    const [first, ...records] = eventsOf(readFileSync(logs[0]![0]!, "utf8"));
    expect(first).toMatchObject({ project: "p", config: { iters: 20 } });
    const kinds = records.map(({ iteration, train_loss }) => [iteration, train_loss === undefined ? "val" : "train"]);
    expect(kinds).toEqual([
      [0, "val"],
      [10, "train"],
      [19, "val"],
      [20, "train"],
    ]);
    expect(readFileSync(logs[1]![0]!, "utf8")).toBe(readFileSync(logs[0]![0]!, "utf8"));

    // What was saved is what was tested.
    const again = await lora(["--test", "--batch-size", "3", "--adapter-path", adapters, "--json"]);
    const { loss } = eventsOf(again.out).at(-1)!;
    expect(out).toContain(`Test loss ${loss.toFixed(3)}`);
    const plain = await lora(["--test", "--batch-size", "3", "--adapter-path", "", "--json"]);
    expect(eventsOf(plain.out).at(-1)!.loss).toBeGreaterThan(loss);
  }, 120_000);

  test("as events has all digits, and only them on stdout", async () => {
    const { out, problems, code } = await lora([
      "--train",
      ...small,
      "--iters",
      "4",
      "--steps-per-report",
      "2",
      "--json",
      "--adapter-path",
      folder(),
    ]);
    expect(code).toBe(0);
    expect(problems).toBe("");
    const events = eventsOf(out);
    expect(events.map(({ type }) => type)).toEqual(["data", "data", "val", "train", "val", "train", "saved"]);
    expect(events[0]).toMatchObject({ split: "train", rows: 24, truncated: 0 });
    const { loss, learning_rate, trained_tokens, peak_memory } = events.findLast(({ type }) => type === "train")!;
    expect(String(loss).length).toBeGreaterThan(8);
    expect(learning_rate).toBe(1e-3);
    expect(trained_tokens).toBeGreaterThan(50);
    expect(peak_memory).toBeGreaterThan(0);
  }, 60_000);

  test("takes settings from YAML, flags first, and warns of names that there are not", async () => {
    const path = join(scratch, "settings.yaml");
    const adapters = folder();
    writeFileSync(
      path,
      `train: true\nfine_tune_type: dora\niters: 9\nlearning_rate: 1e-4\noptimizer: adamw\noptimizer_config:\n  adamw: {weight_decay: 0.1}\n` +
        `lr_schedule: {name: linear_schedule, arguments: [1e-4, 1e-5, 4], warmup: 2}\nlora_parameters: {rank: 2, scale: 4, keys: [self_attn.q_proj]}\n` +
        `adapter_path: ${adapters}\nval_bathces: 1\n`,
    );
    const { out, problems, code } = await lora([
      "--config",
      path,
      "--batch-size",
      "3",
      "--iters",
      "4",
      "--steps-per-report",
      "1",
      "--json",
    ]);
    expect(code).toBe(0);
    expect(problems).toContain("there is no setting val_bathces; did you mean val_batches?");
    const rates = eventsOf(out).flatMap(({ type, learning_rate }) =>
      type === "train" ? [learning_rate as number] : [],
    );
    expect(rates).toEqual([0, 5e-5, 1e-4, 1e-4].map((rate) => expect.closeTo(rate, 9)));
    const config = JSON.parse(readFileSync(join(adapters, "adapter_config.json"), "utf8"));
    expect(config).toMatchObject({
      fine_tune_type: "dora",
      iters: 4,
      lora_parameters: { rank: 2, keys: ["self_attn.q_proj"] },
    });
  }, 60_000);
});

test("at a terminal the losses are drawn", async () => {
  const words = ["--train", ...small, "--iters", "6", "--steps-per-report", "1", "--adapter-path", folder()];
  const command = [process.execPath, main, "lora", "--model", model, "--data", data, ...words];
  const program = new TerminalProgram(command, { env: { TERM: "xterm", CI: "" }, columns: 60 });
  const shown = await program.until("The losses as a picture");
  expect(await program.ended()).toBe(0);
  const plot = shown.split("\n").filter((line) => /[\u2801-\u28ff]/.test(line));
  expect(plot.length).toBeGreaterThan(3);
  expect(plot.every((line) => line.length === 60)).toBe(true);
}, 60_000);

describe("a training that ended goes on as if it had not", () => {
  // So many that it does not end by itself ahead of the signal.
  const iterations = 120;
  const words = [
    ...small,
    "--steps-per-report",
    "1",
    "--steps-per-eval",
    "7",
    "--save-every",
    "5",
    "--iters",
    `${iterations}`,
    "--json",
  ];
  const options = ["--optimizer", "adamw", "--grad-accumulation-steps", "2"];
  let whole: ReturnType<typeof losses>;

  beforeAll(async () => {
    const { out, code } = await lora(["--train", ...words, ...options, "--adapter-path", folder()]);
    expect(code).toBe(0);
    whole = losses(eventsOf(out));
  }, 60_000);

  /** Starts it, sends the signal as the step has ended, and returns the events up to the end. */
  async function stopped(adapters: string, iteration: number, signal: NodeJS.Signals) {
    const child = start(["--train", ...words, ...options, "--adapter-path", adapters, "--report-to", "wandb"]);
    const decoder = new TextDecoder();
    let out = "";
    // A second interrupt would end it at once.
    let sent = false;
    for await (const bytes of child.stdout) {
      out += decoder.decode(bytes, { stream: true });
      if (sent || !out.includes(`"type":"train","iteration":${iteration},`)) continue;
      sent = true;
      child.kill(signal);
    }
    return { out, problems: await child.stderr.text(), code: await child.exited };
  }

  const resumed = (adapters: string) =>
    lora(["--resume", "--adapter-path", adapters, "--json", "--report-to", "wandb"]);

  test("an interrupt saves first, and ends with 130", async () => {
    const adapters = folder();
    const first = await stopped(adapters, 6, "SIGINT");
    expect(first.code).toBe(130);
    const { path, iteration: saved } = eventsOf(first.out).at(-1)!;
    expect(path).toBe(join(adapters, `${String(saved).padStart(7, "0")}_adapters.safetensors`));
    const second = await resumed(adapters);
    expect(second.code).toBe(0);
    const parts = [...losses(eventsOf(first.out)), ...losses(eventsOf(second.out))];
    expect(parts).toEqual(whole);
    const third = await resumed(adapters);
    expect(third.code).toBe(0);
    expect(third.problems).toContain(
      `all ${iterations} iterations are done already; to go on: --resume --iters ${2 * iterations}`,
    );
  }, 120_000);

  test("kill -9 loses the steps since the last checkpoint, and nothing else", async () => {
    const adapters = folder();
    const first = await stopped(adapters, 8, "SIGKILL");
    expect(first.code).not.toBe(0);
    const second = losses(eventsOf((await resumed(adapters)).out));
    expect(second.length).toBeGreaterThan(8);
    expect(second).toEqual(whole.slice(-second.length));
    // The log has each step once, in spite of those that were done again.
    const [, ...records] = eventsOf(
      readFileSync(join(adapters, "wandb", `${adapters.split("/").at(-1)}.jsonl`), "utf8"),
    );
    const steps = records.flatMap(({ iteration, train_loss }) => (train_loss === undefined ? [] : [iteration]));
    expect(steps).toEqual(Array.from({ length: iterations }, (_, i) => i + 1));
    expect(
      readFileSync(join(adapters, "curve.svg"), "utf8")
        .match(/d="(M[^"]*)"/g)!
        .some((line) => line.split("L").length === iterations),
    ).toBe(true);
  }, 120_000);

  test("with other settings it does not", async () => {
    const adapters = folder();
    await stopped(adapters, 6, "SIGINT");
    const { code, problems } = await lora(["--resume", "--adapter-path", adapters, "--seed", "5"]);
    expect([code, problems]).toEqual([2, expect.stringContaining("another seed: it was 0, not 5")]);
  }, 60_000);
});

describe("with packed rows", () => {
  const words = ["--packing", "--mask-prompt", "--batch-size", "2", "--max-seq-length", "64", "--num-layers", "1"];
  const sizes = ["--learning-rate", "1e-3", "--steps-per-report", "1", "--val-batches", "1", "--save-every", "4"];

  test("it says what that saves, and goes on where it ended", async () => {
    const [once, twice] = [folder(), folder()];
    const train = (adapters: string, iters: number, more: string[] = []) =>
      lora(["--train", ...words, ...sizes, "--iters", `${iters}`, "--adapter-path", adapters, "--json", ...more]);
    const whole = await train(once, 8);
    expect(whole.code).toBe(0);
    const { filled, filled_by_padding, rows, samples } = eventsOf(whole.out).find(({ type }) => type === "packing")!;
    expect(samples).toBe(24);
    expect(rows as number).toBeLessThan(24);
    expect(filled as number).toBeGreaterThan(filled_by_padding as number);
    const first = await lora(["--train", ...words, ...sizes, "--iters", "4", "--adapter-path", twice]);
    expect(first.problems).toMatch(/packed {2}24 rows of data in \d+: [\d.]+ % of what is read/);
    const rest = await train(twice, 8, ["--resume"]);
    expect(rest.code).toBe(0);
    const steps = (out: string) => losses(eventsOf(out)).filter(([type]) => type === "train");
    expect(steps(rest.out)).toEqual(steps(whole.out).slice(4));
    const other = await lora(["--resume", "--adapter-path", once, "--iters", "9", "--max-seq-length", "32"]);
    expect([other.code, other.problems]).toEqual([2, expect.stringContaining("max_seq_length")]);
  }, 120_000);
});

describe("what goes wrong", () => {
  const train = ["--train", ...small, "--iters", "12", "--save-every", "4"];

  test.each<[string, string[], number, RegExp]>([
    ["nothing to do", [], 2, /neither --train nor --test/],
    ["an unknown service", [...train, "--report-to", "wandd"], 2, /no service "wandd"[\s\S]*Did you mean wandb\?/],
    ["no data", [...train, "--data", "nowhere/at/all"], 3, /there is no dataset nowhere\/at\/all/],
    ["an unknown optimizer", [...train, "--optimizer", "adamx"], 2, /--optimizer/],
    ["batches larger than the data", [...train, "--batch-size", "100"], 2, /24 samples, fewer than a batch of 100/],
    ["no saved training", ["--resume", "--adapter-path", "empty"], 3, /adapter_config\.json/],
    ["no such adapter weights", [...train, "--resume-adapter-file", "none.safetensors"], 3, /there is no file none/],
    ["no such settings", ["--config", "none.yaml"], 3, /no configuration file none\.yaml/],
  ])(
    "%s",
    async (_, words, code, message) => {
      const result = await lora([...words, "--adapter-path", words.at(-1) === "empty" ? "empty" : folder()]);
      expect([result.code, result.problems]).toEqual([code, expect.stringMatching(message)]);
      expect(result.problems).not.toContain("    at ");
    },
    60_000,
  );

  test("a bad line is named before training", async () => {
    const bad = join(scratch, "bad");
    cpSync(data, bad, { recursive: true });
    writeFileSync(join(bad, "train.jsonl"), `${lines(rowsOf(4))}{"prompt": "a"}\n`);
    const adapters = folder();
    const { code, problems } = await lora([...train, "--data", bad, "--adapter-path", adapters]);
    expect([code, problems]).toEqual([
      1,
      expect.stringContaining(`${bad}/train.jsonl, line 5: "completion" must be a text`),
    ]);
    expect(existsSync(adapters)).toBe(false);
  }, 60_000);

  test("a loss that is no number names the rows, and leaves the last good checkpoint", async () => {
    const adapters = folder();
    expect((await lora([...train, "--adapter-path", adapters])).code).toBe(0);
    const before = readFileSync(join(adapters, "adapters.safetensors"));
    const { code, problems } = await lora([...train, "--learning-rate", "1e30", "--adapter-path", adapters]);
    expect(code).toBe(1);
    expect(problems).toMatch(
      /the loss of iteration \d+ is (NaN|Infinity); its batch has 3 rows: .*train\.jsonl, line \d+ \(\d+ tokens\)/,
    );
    expect(readFileSync(join(adapters, "adapters.safetensors"))).toEqual(before);
  }, 60_000);

  test("prompts that fill the whole length are said to, before and when they come", async () => {
    const words = [...train, "--mask-prompt", "--max-seq-length", "6", "--adapter-path", folder()];
    const { code, problems } = await lora(words);
    expect(code).toBe(1);
    expect(problems).toContain("24 rows teach nothing: their prompts alone are that long");
    expect(problems).toContain("no token has a loss in iteration 1");
  }, 60_000);

  test("no room on the disk keeps the checkpoint before", async () => {
    const adapters = folder();
    const words = [...train, "--adapter-path", adapters];
    expect((await lora([...words, "--iters", "4"])).code).toBe(0);
    const before = readFileSync(join(adapters, "adapters.safetensors"));
    // Files may have 16 kB, which no checkpoint fits in.
    const limited = ["sh", "-c", 'trap "" XFSZ; ulimit -f 32; exec "$@"', "sh"];
    const { code, problems } = await lora([...words, "--resume"], limited);
    expect([code, problems]).toEqual([5, expect.stringMatching(/cannot be written[\s\S]*Make room there/)]);
    expect(readFileSync(join(adapters, "adapters.safetensors"))).toEqual(before);
    expect(readdirSync(adapters).filter((name) => name.startsWith("."))).toEqual([]);
    // And there is nothing wrong with what is left.
    expect((await lora([...words, "--resume"])).code).toBe(0);
  }, 120_000);
});
