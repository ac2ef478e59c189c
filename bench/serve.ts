/**
 * Servers under many clients, one server after the other in the same run: total tokens a second, how long the first
 * token takes, and how much time of CPUs a token takes, which says something on a machine that is busy too (Linux).
 *
 *   bun bench/serve.ts MODEL [--ours PROGRAM] [--python PATH] [--gguf FILE] [--clients 32] [--requests 96]
 *                            [--mlx-lm-requests 96] [--prompt 128] [--tokens 64] [--runs 3]
 *
 * MODEL is a folder. Ours is the source unless PROGRAM names an executable. With --python mlx-lm's server runs too, with
 * --gguf llama.cpp's (xllamacpp of the same Python), on that file. mlx-lm's takes minutes a run on two cores: fewer requests
 * are enough for it, at least as many as there are clients.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { median } from "./median";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    ours: { type: "string" },
    python: { type: "string" },
    gguf: { type: "string" },
    clients: { type: "string", default: "32" },
    requests: { type: "string", default: "96" },
    "mlx-lm-requests": { type: "string" },
    prompt: { type: "string", default: "128" },
    tokens: { type: "string", default: "64" },
    runs: { type: "string", default: "3" },
  },
});
const [model] = positionals;
if (!model) throw new Error("name a model's folder");
const [clients, requests, promptTokens, tokens, runs] = [
  values.clients,
  values.requests,
  values.prompt,
  values.tokens,
  values.runs,
].map(Number) as [number, number, number, number, number];

interface Figures {
  tokens_per_second: number;
  cpu_ms_per_token: number;
  first_token_p50: number;
  first_token_p95: number;
}

const port = 18_731;
const url = `http://127.0.0.1:${port}`;
const source = [process.execPath, join(import.meta.dir, "../cmd/main.ts")];

const servers: Record<string, string[]> = {
  mlxlm: [...(values.ours ? [values.ours] : source), "server", model, "--port", `${port}`, "--log-level", "ERROR"],
};
if (values.python) {
  const flags = ["--model", model, "--port", `${port}`, "--log-level", "ERROR"];
  servers["mlx-lm"] = [values.python, "-m", "mlx_lm.server", ...flags];
  if (values.gguf) {
    const script = join(import.meta.dir, "llama-server.py");
    servers["llama.cpp"] = [
      values.python,
      script,
      values.gguf,
      `${port}`,
      `${clients}`,
      `${promptTokens + tokens + 64}`,
    ];
  }
}

/** Words, so that prompts are of about as many tokens, and no two begin alike. */
const words = ["fox", "river", "old", "mill", "green", "forest", "small", "bird", "stone", "bread", "night", "village"];

function prompt(seed: number): string {
  let state = seed * 7919 + 1;
  return Array.from({ length: promptTokens }, () => {
    state = (state * 48_271) % 2_147_483_647;
    return words[state % words.length];
  }).join(" ");
}

/** Seconds to the first token, and how many there were. */
async function ask(seed: number): Promise<{ first: number; count: number }> {
  const began = performance.now();
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      ...{ model: "default_model", prompt: prompt(seed), max_tokens: tokens, temperature: 0, stream: true },
      stream_options: { include_usage: true },
    }),
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  let first = 0;
  let text = "";
  const decoder = new TextDecoder();
  for await (const bytes of response.body!) {
    const piece = decoder.decode(bytes as Uint8Array, { stream: true });
    if (first === 0 && piece.includes("data:")) first = (performance.now() - began) / 1000;
    text += piece;
  }
  const [, count] = /"completion_tokens":\s*(\d+)(?!.*"completion_tokens")/s.exec(text) ?? [];
  return { first, count: Number(count) };
}

/** Seconds of CPUs that a process has had; NaN where nobody says. */
function cpuSeconds(pid: number): number {
  try {
    const [user, system] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ").slice(11, 13);
    return (Number(user) + Number(system)) / 100;
  } catch {
    return Number.NaN;
  }
}

async function measure(round: number, pid: number, requests: number): Promise<Figures> {
  let next = 0;
  let count = 0;
  const firsts: number[] = [];
  const before = cpuSeconds(pid);
  const began = performance.now();
  const client = async () => {
    while (next < requests) {
      const answer = await ask(round * 100_000 + next++);
      count += answer.count;
      firsts.push(answer.first);
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  const seconds = (performance.now() - began) / 1000;
  firsts.sort((a, b) => a - b);
  const at = (share: number) => firsts[Math.min(firsts.length - 1, Math.floor(share * firsts.length))]!;
  const cpu_ms_per_token = (1000 * (cpuSeconds(pid) - before)) / count;
  return { tokens_per_second: count / seconds, cpu_ms_per_token, first_token_p50: at(0.5), first_token_p95: at(0.95) };
}

async function started(command: string[]): Promise<Bun.Subprocess> {
  const process = Bun.spawn(command, { stdout: "ignore", stderr: "inherit" });
  for (let i = 0; i < 600; i++) {
    if (process.exitCode !== null) throw new Error(`${command.join(" ")} has ended`);
    if ((await fetch(`${url}/health`).catch(() => null))?.ok) return process;
    await Bun.sleep(100);
  }
  throw new Error(`${command.join(" ")} does not answer`);
}

const figures: Record<string, Figures[]> = {};
for (let run = 0; run < runs; run++) {
  for (const [name, command] of Object.entries(servers)) {
    const server = await started(command);
    await ask(99_999 + run);
    const asked = name === "mlx-lm" ? Number(values["mlx-lm-requests"] ?? requests) : requests;
    const measured = await measure(run, server.pid, asked);
    figures[name] = [...(figures[name] ?? []), measured];
    console.error(`${name} ${JSON.stringify(measured)}`);
    server.kill();
    await server.exited;
  }
}
for (const [name, all] of Object.entries(figures)) {
  const of = (key: keyof Figures) => median(all.map((one) => one[key]));
  const [rate, p50, p95] = [of("tokens_per_second"), of("first_token_p50"), of("first_token_p95")];
  const cpu = of("cpu_ms_per_token");
  const ratio = rate / median(figures.mlxlm!.map((one) => one.tokens_per_second));
  console.log(
    `${name.padEnd(10)} ${rate.toFixed(1)} tokens/s (${ratio.toFixed(2)} of mlxlm), first token p50 ${p50.toFixed(2)} s, p95 ${p95.toFixed(2)} s, ${cpu.toFixed(2)} ms of CPUs a token`,
  );
}
