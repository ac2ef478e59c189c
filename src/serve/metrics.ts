/** Figures for Prometheus, in its text format (version 0.0.4). */
import * as mx from "../mlx";
import type { End } from "./generation";
import type { Models } from "./models/models";

/** Upper ends of the times to the first token, in seconds. */
const buckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

export class Metrics {
  readonly #requests = new Map<string, number>();
  readonly #first = new Array<number>(buckets.length).fill(0);
  #firstCount = 0;
  #firstSum = 0;
  #promptTokens = 0;
  #cachedTokens = 0;
  #generatedTokens = 0;

  /** A request was answered with a status. */
  request(route: string, status: number): void {
    const key = `route="${route}",status="${status}"`;
    this.#requests.set(key, (this.#requests.get(key) ?? 0) + 1);
  }

  /** The first token came after so many seconds. */
  firstToken(seconds: number): void {
    this.#firstCount++;
    this.#firstSum += seconds;
    for (const [i, bound] of buckets.entries()) if (seconds <= bound) this.#first[i]!++;
  }

  answered({ prompt_tokens, cached_tokens, generation_tokens }: End): void {
    this.#promptTokens += prompt_tokens;
    this.#cachedTokens += cached_tokens;
    this.#generatedTokens += generation_tokens;
  }

  text(models: Models): string {
    const lines: string[] = [];
    const metric = (name: string, type: string, help: string, samples: readonly (readonly [string, number])[]) => {
      lines.push(`# HELP mlxlm_${name} ${help}`, `# TYPE mlxlm_${name} ${type}`);
      for (const [labels, value] of samples) lines.push(`mlxlm_${name}${labels} ${value}`);
    };
    const one = (value: number): [string, number][] => [["", value]];
    const requests = [...this.#requests].map(([labels, count]) => [`{${labels}}`, count] as const);
    metric("requests_total", "counter", "Requests, by route and status.", requests);
    metric("prompt_tokens_total", "counter", "Tokens of prompts that were read.", one(this.#promptTokens));
    metric("cached_tokens_total", "counter", "Tokens of prompts that needed no reading.", one(this.#cachedTokens));
    metric("generated_tokens_total", "counter", "Tokens that were generated.", one(this.#generatedTokens));
    metric("time_to_first_token_seconds", "histogram", "Seconds from a request to its first token.", []);
    const name = "mlxlm_time_to_first_token_seconds";
    for (const [i, bound] of buckets.entries()) lines.push(`${name}_bucket{le="${bound}"} ${this.#first[i]}`);
    lines.push(`${name}_bucket{le="+Inf"} ${this.#firstCount}`);
    lines.push(`${name}_sum ${this.#firstSum}`, `${name}_count ${this.#firstCount}`);
    const loaded = models.loaded.map(({ served }) => served);
    const each = (value: (one: (typeof loaded)[number]) => number) =>
      loaded.map((served) => [`{model=${JSON.stringify(served.name)}}`, value(served)] as const);
    metric(
      "requests_running",
      "gauge",
      "Answers that are being generated.",
      each((one) => one.scheduler.running),
    );
    metric(
      "requests_waiting",
      "gauge",
      "Requests that wait for a place.",
      each((one) => one.scheduler.waiting),
    );
    metric(
      "prefix_cache_bytes",
      "gauge",
      "Bytes of kept prompts.",
      each((one) => one.prefixes.nbytes),
    );
    metric(
      "engine_silence_seconds",
      "gauge",
      "Seconds since the engine's last step.",
      each((one) => one.scheduler.silence),
    );
    metric("memory_active_bytes", "gauge", "Bytes of all tensors.", one(mx.activeMemory()));
    metric("memory_peak_bytes", "gauge", "The most that it has been.", one(mx.peakMemory()));
    metric("tensors", "gauge", "Tensors that are alive.", one(mx.liveHandles()));
    return `${lines.join("\n")}\n`;
  }
}
