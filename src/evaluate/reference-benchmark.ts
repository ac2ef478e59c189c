/** The same benchmark by Python's mlx-lm, in a process of its own. */
import { ExitCode, UserError } from "../errors";
import type { Trial } from "./speed";

export interface ReferenceOptions {
  /** Folder of the model. */
  model: string;
  promptTokens: number;
  generationTokens: number;
  batchSize: number;
  prefillStepSize?: number;
  signal: AbortSignal;
}

/** An installed mlx-lm. */
export interface Reference {
  python: string;
  version: string;
}

const versionScript = "import importlib.metadata, mlx_lm.benchmark; print(importlib.metadata.version('mlx-lm'))";

/** Lines of stderr that an error repeats. */
const quoted = 3;

/**
 * Finds mlx-lm in a Python.
 * @throws UserError where there is no such Python, or it has no mlx_lm that works
 */
export async function findReference(python: string, signal: AbortSignal): Promise<Reference> {
  const { out, problems, code } = await runPython(python, ["-c", versionScript], signal);
  const version = out.trim().split("\n").at(-1) ?? "";
  if (code === 0 && version !== "") return { python, version };
  const missing = /No module named '(mlx_lm|mlx)\b/.test(problems);
  throw new UserError(`${python} has no ${missing ? "mlx_lm" : `mlx_lm that works: ${lastLines(problems)}`}`, {
    code: missing ? ExitCode.notFound : ExitCode.failure,
    hint: "Name the Python of an environment with mlx-lm: --against venv/bin/python",
  });
}

/**
 * Runs one trial, after the warm-up that mlx-lm makes itself.
 * @returns null where it was interrupted
 * @throws UserError where it fails, or prints what cannot be read
 */
export async function runReferenceTrial({ python }: Reference, options: ReferenceOptions): Promise<Trial | null> {
  const { model, promptTokens, generationTokens, batchSize, prefillStepSize, signal } = options;
  const words = ["-m", "mlx_lm", "benchmark", "--model", model, "--num-trials", "1"];
  words.push("--prompt-tokens", `${promptTokens}`, "--generation-tokens", `${generationTokens}`);
  words.push("--batch-size", `${batchSize}`);
  if (prefillStepSize !== undefined) words.push("--prefill-step-size", `${prefillStepSize}`);
  const { out, problems, code } = await runPython(python, words, signal);
  if (signal.aborted) return null;
  if (code !== 0) {
    throw new UserError(`mlx-lm's benchmark failed: ${lastLines(problems)}`, {
      hint: `To see all of it: ${[python, ...words].join(" ")}`,
    });
  }
  const trial = readTrial(out);
  if (trial) return trial;
  throw new UserError(`mlx-lm's benchmark printed no figures that mlxlm can read: ${lastLines(out)}`, {
    hint: "mlxlm knows the lines of mlx-lm 0.32.",
  });
}

/** The figures of `Trial 1:  prompt_tps=…, generation_tps=…, peak_memory=…, total_time=…`. */
export function readTrial(text: string): Trial | null {
  const line = text.split("\n").find((one) => one.startsWith("Trial 1:"));
  const figures = new Map(line?.matchAll(/(\w+)=([^,\s]+)/g).map(([, name, value]) => [name!, Number(value)] as const));
  const [prompt_tps, generation_tps] = [figures.get("prompt_tps"), figures.get("generation_tps")];
  const [peak_memory, total_time] = [figures.get("peak_memory"), figures.get("total_time")];
  if (!prompt_tps || !generation_tps || !Number.isFinite(peak_memory) || !total_time) return null;
  return { prompt_tps, generation_tps, peak_memory: peak_memory!, total_time };
}

async function runPython(python: string, words: string[], signal: AbortSignal) {
  let child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  try {
    child = Bun.spawn([python, ...words], { stdin: "ignore", stdout: "pipe", stderr: "pipe", signal });
  } catch (error) {
    throw new UserError(`${python} cannot be run: ${(error as Error).message}`, {
      code: ExitCode.notFound,
      hint: "--against wants the path of a Python.",
    });
  }
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, problems, code };
}

function lastLines(text: string): string {
  return text.trim().split("\n").slice(-quoted).join(" | ") || "it printed nothing";
}
