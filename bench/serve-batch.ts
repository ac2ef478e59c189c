/**
 * What the server costs: tokens a second of so many clients, beside what the batch engine gives alone (`mlxlm benchmark`),
 * on one model of random weights. Both count the whole time, prompts too. Prints the ratio.
 *
 *   bun bench/serve-batch.ts [--shape llama-8b] [--dtype bfloat16] [--bits 4] [--layers 8] [--model FOLDER] [--ours PROGRAM]
 *                            [--clients 32] [--prompt 128] [--tokens 256] [--runs 3]
 *
 * A model is made in a temporary folder and removed, unless --model names one. Ours is the source unless PROGRAM names an executable.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { measure, numbersOf, startServer, stopServer } from "./clients";
import { median } from "./median";

const { values } = parseArgs({
  options: {
    shape: { type: "string", default: "llama-8b" },
    dtype: { type: "string", default: "bfloat16" },
    bits: { type: "string" },
    layers: { type: "string" },
    model: { type: "string" },
    ours: { type: "string" },
    clients: { type: "string", default: "32" },
    prompt: { type: "string", default: "128" },
    tokens: { type: "string", default: "256" },
    runs: { type: "string", default: "3" },
  },
});
const [clients, promptTokens, tokens, runs] = [values.clients, values.prompt, values.tokens, values.runs].map(
  Number,
) as [number, number, number, number];

const port = 18_733;
const url = `http://127.0.0.1:${port}`;
const root = join(import.meta.dir, "..");
const program = values.ours ? [values.ours] : [process.execPath, join(root, "cmd/main.ts")];
// An executable that runs this script as Bun does is to be itself again.
const env = { ...process.env, ...(values.ours && { BUN_BE_BUN: undefined }) };

interface Trial {
  prompt_tps: number;
  generation_tps: number;
  /** Seconds. */
  total_time: number;
}

async function run(command: string[], environment: typeof env = process.env): Promise<string> {
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "inherit", env: environment });
  const [text, code] = await Promise.all([child.stdout.text(), child.exited]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}`);
  return text;
}

async function made(): Promise<string> {
  const folder = join(temporary, "model");
  const flags = ["--dtype", values.dtype, "--words"];
  if (values.bits) flags.push("--bits", values.bits);
  if (values.layers) flags.push("--layers", values.layers);
  await run([process.execPath, join(root, "bench/random-model.ts"), values.shape, folder, ...flags]);
  return folder;
}

async function engineAlone(model: string): Promise<Trial[]> {
  const sizes = ["-p", `${promptTokens}`, "-g", `${tokens}`, "-b", `${clients}`, "-n", `${runs}`];
  const text = await run([...program, "benchmark", "--model", model, ...sizes, "--json"], env);
  return (JSON.parse(text.trim().split("\n").at(-1)!) as { trials: Trial[] }).trials;
}

async function served(model: string) {
  const { vocab_size } = JSON.parse(readFileSync(join(model, "config.json"), "utf8")) as { vocab_size: number };
  // Ids of special tokens come first in the demo's tokenizer.
  const prompt = (seed: number) => numbersOf(seed, promptTokens, vocab_size - 8).map((id) => id + 8);
  const flags = ["--port", `${port}`, "--log-level", "ERROR", "--decode-concurrency", `${clients}`];
  const server = await startServer([...program, "server", "--model", model, ...flags], url, { env });
  try {
    const load = { clients, requests: clients, prompt, maxTokens: tokens };
    await measure(url, server.pid, { ...load, maxTokens: Math.min(tokens, 32) }, 1000);
    const all: Awaited<ReturnType<typeof measure>>[] = [];
    for (let round = 0; round < runs; round++) {
      const figures = await measure(url, server.pid, load, round);
      console.error(`server ${JSON.stringify(figures)}`);
      all.push(figures);
    }
    return all;
  } finally {
    await stopServer(server);
  }
}

if (values.model !== undefined && !existsSync(values.model)) throw new Error(`there is no ${values.model}`);
const temporary = mkdtempSync(join(tmpdir(), "mlxlm-serve-batch-"));
try {
  const model = values.model ?? (await made());
  const trials = await engineAlone(model);
  for (const trial of trials) console.error(`engine ${JSON.stringify(trial)}`);
  const waves = await served(model);
  const alone = trials.map(({ total_time }) => (clients * tokens) / total_time);
  const behind = waves.map(({ tokens_per_second }) => tokens_per_second);
  const list = (numbers: number[]) => numbers.map((number) => number.toFixed(1)).join(" ");
  const [p50, p95] = [median(waves.map((one) => one.first_token_p50)), median(waves.map((one) => one.first_token_p95))];
  console.log(`${clients} × (${promptTokens} + ${tokens}) tokens, answers' tokens a second over the whole time`);
  console.log(
    `engine  ${median(alone).toFixed(1)} (${list(alone)}); decoding alone ${list(trials.map((t) => t.generation_tps))}`,
  );
  console.log(
    `server  ${median(behind).toFixed(1)} (${list(behind)}); first token p50 ${p50.toFixed(2)} s, p95 ${p95.toFixed(2)} s`,
  );
  console.log(`ratio   ${(median(behind) / median(alone)).toFixed(3)}`);
} finally {
  rmSync(temporary, { recursive: true });
}
