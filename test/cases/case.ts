/** What a case is, and how it says that something is wrong. */

export interface RunOptions {
  env?: Record<string, string>;
  cwd?: string;
  /** Bytes of addresses that the process may have. */
  limit?: number;
}

export interface Ran {
  out: string;
  problems: string;
  code: number | null;
  /** What ended it, if a signal did. */
  signal: string | number | null;
  /** What the model wrote. */
  text: string;
}

export interface Bench {
  /** An empty folder, where commands are started. */
  folder: string;
  /** Runs the executable. @throws Error where a signal, an internal error or MLX's own words end it */
  run(words: readonly string[], options?: RunOptions): Promise<Ran>;
}

export interface Case {
  name: string;
  /** What is right, in a few words. */
  right: string;
  check(bench: Bench): Promise<void>;
}

/** @throws Error that shows what came */
export function same(came: unknown, right: unknown, what: string): void {
  const [a, b] = [came, right].map((value) => JSON.stringify(value));
  if (a !== b) throw new Error(`${what}: ${a} came, ${b} is right`);
}

/** An error in words: an exit code, and what is said. */
export function refused({ code, problems }: Ran, right: number, words: RegExp): void {
  if (code === right && words.test(problems)) return;
  throw new Error(`exit ${code}, not ${right} with ${words}: ${problems.trim()}`);
}

/** Exit code 0. */
export function sound({ code, problems }: Ran): void {
  if (code !== 0) throw new Error(`exit ${code}: ${problems.trim()}`);
}

export const generate = (model: string, prompt = "hello", tokens = 8) => [
  ...["generate", "--model", model, "--prompt", prompt, "--max-tokens", `${tokens}`, "--verbose", "false"],
];

export const lora = (data: string, ...more: string[]) => [
  ...["lora", "--train", "--model", "demo", "--data", data, "--iters", "2", "--batch-size", "2"],
  ...["--adapter-path", "adapters", ...more],
];
