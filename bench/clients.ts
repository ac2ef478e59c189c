/** Many clients of one server that speaks OpenAI's `/v1/completions`, and what they see of it. */
import { readFileSync } from "node:fs";

/** What is asked of a server. */
export interface Load {
  clients: number;
  requests: number;
  /** The prompt of a request, no two alike: a text, or token ids. */
  prompt: (seed: number) => string | number[];
  maxTokens: number;
  /** Seconds: what has not come by then is left. */
  limit?: number;
}

export interface Figures {
  seconds: number;
  /** Tokens that came, those of answers that were left too. */
  tokens: number;
  tokens_per_second: number;
  cpu_ms_per_token: number;
  /** Seconds; infinite where so many answers were left before they began. */
  first_token_p50: number;
  first_token_p95: number;
  /** Of the first answer that was whole. */
  prompt_tokens: number | null;
  whole: number;
  left: number;
}

interface Answer {
  /** Seconds to the first token. */
  first: number;
  tokens: number;
  promptTokens: number | null;
  isWhole: boolean;
}

/** @returns a server's process, once it answers. @throws Error where it ends, or is silent for `patience` seconds */
export async function startServer(
  command: string[],
  url: string,
  { patience = 300, env }: { patience?: number; env?: Record<string, string | undefined> } = {},
): Promise<Bun.Subprocess> {
  const process = Bun.spawn(command, { stdout: "ignore", stderr: "inherit", ...(env && { env }) });
  const end = performance.now() + patience * 1000;
  while (performance.now() < end) {
    if (process.exitCode !== null) throw new Error(`${command.join(" ")} has ended`);
    if ((await fetch(`${url}/health`).catch(() => null))?.ok) return process;
    await Bun.sleep(100);
  }
  process.kill();
  throw new Error(`${command.join(" ")} does not answer`);
}

/** Ends a server, by force where it does not end by itself. */
export async function stopServer(server: Bun.Subprocess): Promise<void> {
  server.kill();
  const isEnded = await Promise.race([server.exited.then(() => true), Bun.sleep(10_000).then(() => false)]);
  if (!isEnded) server.kill("SIGKILL");
  await server.exited;
}

/** All requests of a load, by so many clients at a time. @param seed other prompts for each */
export async function measure(url: string, pid: number, load: Load, seed: number): Promise<Figures> {
  const { clients, requests, limit } = load;
  const signal = limit === undefined ? undefined : AbortSignal.timeout(limit * 1000);
  const answers: Answer[] = [];
  let next = 0;
  const before = cpuSeconds(pid);
  const began = performance.now();
  const client = async () => {
    while (next < requests && !signal?.aborted) answers.push(await ask(url, load, seed * 100_000 + next++, signal));
  };
  await Promise.all(Array.from({ length: clients }, client));
  const seconds = (performance.now() - began) / 1000;
  const tokens = answers.reduce((sum, answer) => sum + answer.tokens, 0);
  const firsts = answers.map(({ first }) => first).sort((a, b) => a - b);
  const at = (share: number) => firsts[Math.min(firsts.length - 1, Math.floor(share * firsts.length))]!;
  const whole = answers.filter(({ isWhole }) => isWhole);
  return {
    ...{ seconds, tokens, tokens_per_second: tokens / seconds },
    cpu_ms_per_token: (1000 * (cpuSeconds(pid) - before)) / tokens,
    ...{ first_token_p50: at(0.5), first_token_p95: at(0.95) },
    prompt_tokens: whole[0]?.promptTokens ?? null,
    ...{ whole: whole.length, left: answers.length - whole.length },
  };
}

async function ask(url: string, { prompt, maxTokens }: Load, seed: number, signal?: AbortSignal): Promise<Answer> {
  const began = performance.now();
  const body = {
    ...{ model: "default_model", prompt: prompt(seed), max_tokens: maxTokens, temperature: 0, stream: true },
    stream_options: { include_usage: true },
  };
  let first = Number.POSITIVE_INFINITY;
  let text = "";
  try {
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${url}/v1/completions`, {
      // Another server may stand behind the same port since: no connection is kept.
      ...{ method: "POST", headers, body: JSON.stringify(body), signal, keepalive: false },
    });
    if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
    const decoder = new TextDecoder();
    for await (const bytes of response.body!) {
      const piece = decoder.decode(bytes as Uint8Array, { stream: true });
      if (first === Number.POSITIVE_INFINITY && piece.includes("data:")) first = (performance.now() - began) / 1000;
      text += piece;
    }
  } catch (error) {
    if (!signal?.aborted) throw error;
    // An event is a token where each has a text.
    return { first, tokens: text.match(/^data: \{/gm)?.length ?? 0, promptTokens: null, isWhole: false };
  }
  const last = (name: string) => new RegExp(`"${name}":\\s*(\\d+)(?!.*"${name}")`, "s").exec(text)?.[1];
  const [tokens, promptTokens] = [last("completion_tokens"), last("prompt_tokens")];
  if (tokens === undefined) throw new Error(`an answer ends without its usage: ${text.slice(-300)}`);
  return { first, tokens: Number(tokens), promptTokens: Number(promptTokens), isWhole: true };
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

const words = ["fox", "river", "old", "mill", "green", "forest", "small", "bird", "stone", "bread", "night", "village"];

/** So many words in an order of the seed's: prompts of about as many tokens, no two of which begin alike. */
export function wordsOf(seed: number, count: number): string {
  return numbersOf(seed, count, words.length)
    .map((index) => words[index])
    .join(" ");
}

/** So many numbers below a limit, in an order of the seed's. */
export function numbersOf(seed: number, count: number, below: number): number[] {
  let state = (seed * 7919 + 1) % 2_147_483_647;
  return Array.from({ length: count }, () => {
    state = (state * 48_271) % 2_147_483_647;
    return state % below;
  });
}
