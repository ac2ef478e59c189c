/**
 * Servers under many clients, one server after the other in the same run: total tokens a second, how long the first
 * token takes, and how much time of CPUs a token takes, which says something on a machine that is busy too (Linux).
 *
 *   bun bench/serve.ts MODEL [--ours PROGRAM] [--gguf FILE] [--python PATH] [--mlx-lm-model FOLDER] [--clients 32]
 *                            [--requests 96] [--prompt 128] [--tokens 64] [--runs 2] [--limit 60]
 *                            [--short-prompt 16] [--short-tokens 8] [--short-limit 150]
 *
 * MODEL is a folder. Ours is the source unless PROGRAM names an executable. With --python and --gguf, llama.cpp's runs too
 * (xllamacpp of that Python), on that file. With --python, mlx-lm's runs as well, on its own folder where one is named, and a short load
 * follows, one request a client, which is the only one that mlx-lm's gets: on two cores it takes minutes for that.
 * What has not come when the limit (seconds) is reached is left; tokens that came count.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Figures, type Load, measure, startServer, stopServer, wordsOf } from "./clients";
import { median } from "./median";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    ours: { type: "string" },
    gguf: { type: "string" },
    python: { type: "string" },
    "mlx-lm-model": { type: "string" },
    clients: { type: "string", default: "32" },
    requests: { type: "string", default: "96" },
    prompt: { type: "string", default: "128" },
    tokens: { type: "string", default: "64" },
    runs: { type: "string", default: "2" },
    limit: { type: "string", default: "60" },
    "short-prompt": { type: "string", default: "16" },
    "short-tokens": { type: "string", default: "8" },
    "short-limit": { type: "string", default: "150" },
  },
});
const [model] = positionals;
if (!model) throw new Error("name a model's folder");
const clients = Number(values.clients);

const port = 18_731;
const url = `http://127.0.0.1:${port}`;

/** Words are about as many tokens. */
function loadOf(requests: number, words: number, maxTokens: number, limit: number): Load {
  return { clients, requests, prompt: (seed) => wordsOf(seed, words), maxTokens, limit };
}
const full = loadOf(Number(values.requests), Number(values.prompt), Number(values.tokens), Number(values.limit));
const short = loadOf(
  clients,
  Number(values["short-prompt"]),
  Number(values["short-tokens"]),
  Number(values["short-limit"]),
);

const source = [process.execPath, join(import.meta.dir, "../cmd/main.ts")];
// An executable that runs this script as Bun does is to be itself again.
const env = { ...process.env, ...(values.ours && { BUN_BE_BUN: undefined }) };
const serving = ["--port", `${port}`, "--log-level", "ERROR"];

const servers: Record<string, string[]> = {
  mlxlm: [...(values.ours ? [values.ours] : source), "server", "--model", model, ...serving],
};
if (values.python && values.gguf) {
  // A prompt's words may be two tokens each.
  const each = 2 * Number(values.prompt) + Number(values.tokens);
  const script = join(import.meta.dir, "llama-server.py");
  servers["llama.cpp"] = [values.python, script, values.gguf, `${port}`, `${clients}`, `${each}`];
}
const mlxLm = "mlx-lm";
if (values.python) {
  servers[mlxLm] = [values.python, "-m", "mlx_lm.server", "--model", values["mlx-lm-model"] ?? model, ...serving];
}

/** Starts a server, lets it answer once, and measures. */
async function measured(name: string, load: Load, round: number): Promise<Figures> {
  const server = await startServer(servers[name]!, url, name === "mlxlm" ? { env } : {});
  try {
    await measure(url, server.pid, { ...load, clients: 1, requests: 1, maxTokens: 2 }, 500 + round);
    const figures = await measure(url, server.pid, load, round);
    console.error(`${name} ${JSON.stringify(figures)}`);
    return figures;
  } finally {
    await stopServer(server);
  }
}

/** Runs a load on the named servers in turn, and prints a line for each. */
async function compare(title: string, load: Load, names: string[], runs: number): Promise<void> {
  const all = new Map<string, Figures[]>(names.map((name) => [name, []]));
  for (let run = 0; run < runs; run++) {
    for (const [name, figures] of all) figures.push(await measured(name, load, run));
  }
  const rateOf = (name: string) => median(all.get(name)!.map((one) => one.tokens_per_second));
  console.log(`${title}: ${load.clients} clients, ${load.requests} requests, ${load.maxTokens} tokens each`);
  for (const [name, figures] of all) {
    const of = (key: "first_token_p50" | "first_token_p95" | "cpu_ms_per_token") =>
      median(figures.map((one) => one[key]));
    const seconds = (value: number) => (Number.isFinite(value) ? `${value.toFixed(2)} s` : `over ${load.limit} s`);
    const rates = figures.map((one) => one.tokens_per_second.toFixed(1)).join(" ");
    const left = figures.reduce((sum, one) => sum + one.left, 0);
    console.log(
      [
        `${name.padEnd(10)} ${rateOf(name).toFixed(1)} tokens/s (${rates}; ${(rateOf(name) / rateOf("mlxlm")).toFixed(3)} of mlxlm)`,
        `first token p50 ${seconds(of("first_token_p50"))}, p95 ${seconds(of("first_token_p95"))}`,
        `${of("cpu_ms_per_token").toFixed(2)} ms of CPUs a token`,
        `prompts of ${figures[0]!.prompt_tokens ?? "?"} tokens`,
        ...(left > 0 ? [`${left} answers left at the limit`] : []),
      ].join(", "),
    );
  }
}

await compare(
  "full",
  full,
  Object.keys(servers).filter((name) => name !== mlxLm),
  Number(values.runs),
);
if (values.python) await compare("short", short, Object.keys(servers), 1);
