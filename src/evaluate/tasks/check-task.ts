/** What can be said of a task before its data is opened. */
import { basename } from "node:path";
import { ExitCode, UserError } from "../../errors";
import { type FilterChain, filterChain } from "./filters";
import { type Metric, metricsOf } from "./metrics";
import { portOf } from "./ports";
import type { ProcessResults } from "./ports/port";
import type { TaskSource } from "./select-tasks";
import { readTaskConfig, type TaskConfig } from "./task-config";
import { PythonFunction } from "./task-yaml";

export interface CheckedTask {
  config: TaskConfig;
  metrics: readonly Metric[];
  filters: readonly FilterChain[];
  /** A function that scores a row in place of the metrics. */
  processResults: ProcessResults | null;
  /** What the task is called in messages. */
  owner: string;
}

/** @throws UserError for one that cannot be run */
export async function checkTask({ name, path, config: given }: TaskSource): Promise<CheckedTask> {
  const config = readTaskConfig(given, path);
  const owner = `the task ${name} (${basename(path)})`;
  refuse(config, owner);
  for (const key of functionKeys) {
    for (const [place, keys] of [["", config] as const, ["fewshot_config.", config.fewshot_config ?? {}] as const]) {
      const value = (keys as Record<string, unknown>)[key];
      if (value instanceof PythonFunction) await portOf(value, `${owner}: ${place}${key}`);
    }
  }
  const filters = (config.filter_list ?? [{ name: "none", filter: [{ function: "take_first" }] }]).map((chain) =>
    filterChain(chain.name, chain.filter, owner),
  );
  const metrics = await metricsOf(config, config.output_type ?? "generate_until", owner);
  samplerName(config, owner);
  const processResults =
    config.process_results instanceof PythonFunction
      ? ((await portOf(config.process_results, `${owner}: process_results`)) as ProcessResults)
      : null;
  return { config, owner, filters, metrics, processResults };
}

/** Keys that may name a function. */
const functionKeys = ["process_docs", "doc_to_text", "doc_to_target", "doc_to_choice", "samples"];

/** @throws UserError for what mlxlm has not */
function refuse(config: TaskConfig, owner: string): void {
  const lacks = (problem: string) =>
    new UserError(`${owner} ${problem}`, { code: ExitCode.notFound, hint: "Take another task." });
  if (config.doc_to_image !== undefined || config.doc_to_audio !== undefined) throw lacks("needs images or sounds");
  if (config.custom_dataset) throw lacks(`makes its dataset by ${config.custom_dataset}, which is Python`);
  if (config.use_prompt) throw lacks("takes its prompts from promptsource (use_prompt), which mlxlm has not");
  if (config.unsafe_code) throw lacks("runs the code that the model writes, which mlxlm never does");
  if (typeof config.process_results === "string") throw lacks("names process_results as a text");
  if (config.output_type === "multiple_choice" && config.doc_to_choice === undefined) {
    throw new UserError(`${owner} is multiple_choice without doc_to_choice`, { hint: "Add it to the task's file." });
  }
}

/** The name of what chooses examples. @throws UserError for a class in Python */
export function samplerName({ fewshot_config: fewshot }: TaskConfig, owner: string): string {
  const { sampler = "default" } = fewshot ?? {};
  if (typeof sampler === "string") return sampler;
  throw new UserError(`${owner}: fewshot_config.sampler is ${sampler}, a class in Python, which mlxlm cannot run`, {
    code: ExitCode.notFound,
    hint: "Take default or first_n.",
  });
}
