/** What a task's file says, checked: every key is known, every value of its kind. */
import { z } from "zod";
import { ExitCode, UserError } from "../../errors";
import { nearest } from "../../nearest";
import { type Config, PythonFunction } from "./task-yaml";

export const outputTypes = ["loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until"] as const;
export type OutputType = (typeof outputTypes)[number];

const fn = z.instanceof(PythonFunction, { error: "expected a !function" });
const text = z.string();
const mapping = z.record(z.string(), z.unknown());

/** Python's None is the same as nothing. */
const optional = <T extends z.ZodType>(type: T) => type.nullish().transform((value) => value ?? undefined);

const template = z.union([text, z.number(), fn], { error: "expected a text, a number or a !function" });
const choices = z.union([text, fn, z.array(z.unknown()), mapping], {
  error: "expected a text, a list, a mapping or a !function",
});

const metric = z.looseObject({ metric: z.union([text, fn]) });
const filter = z.object({
  name: text,
  filter: z.array(
    z.looseObject({ function: z.union([text, fn]) }, { error: "expected a mapping with a key `function`" }),
  ),
});

const fewshotConfig = z.strictObject({
  sampler: optional(z.union([text, fn])),
  split: optional(text),
  process_docs: optional(fn),
  fewshot_indices: optional(z.array(z.number())),
  samples: optional(z.union([z.array(mapping), fn])),
  doc_to_text: optional(template),
  doc_to_choice: optional(choices),
  doc_to_target: optional(template),
  gen_prefix: optional(text),
  fewshot_delimiter: optional(text),
  target_delimiter: optional(text),
});

/** Far more than tasks ask for: every question is answered so often. */
const mostRepeats = 10_000;

const schema = z.strictObject({
  task: text,
  task_alias: optional(text),
  tag: optional(z.union([text, z.array(text)])),
  custom_dataset: optional(fn),
  dataset_path: optional(text),
  dataset_name: optional(text),
  dataset_kwargs: optional(mapping),
  training_split: optional(text),
  validation_split: optional(text),
  test_split: optional(text),
  fewshot_split: optional(text),
  process_docs: optional(fn),
  doc_to_text: optional(template),
  doc_to_target: optional(z.union([template, z.array(z.unknown())])),
  doc_to_image: optional(z.unknown()),
  doc_to_audio: optional(z.unknown()),
  unsafe_code: optional(z.boolean()),
  doc_to_choice: optional(choices),
  process_results: optional(z.union([fn, text])),
  use_prompt: optional(text),
  description: optional(text),
  target_delimiter: optional(text),
  fewshot_delimiter: optional(text),
  fewshot_config: optional(fewshotConfig),
  num_fewshot: optional(z.int().min(0)),
  metric_list: optional(z.array(metric)),
  output_type: optional(z.enum(outputTypes)),
  generation_kwargs: optional(mapping),
  repeats: optional(z.int().min(1).max(mostRepeats)),
  filter_list: optional(z.array(filter)),
  should_decontaminate: optional(z.boolean()),
  doc_to_decontamination_query: optional(z.unknown()),
  gen_prefix: optional(text),
  metadata: optional(mapping),
});

export type TaskConfig = z.infer<typeof schema>;
export type FewshotConfig = z.infer<typeof fewshotConfig>;

/** @throws UserError that names the file, the key, and what was expected there */
export function readTaskConfig(config: Config, path: string): TaskConfig {
  if (Object.hasOwn(config, "class")) {
    throw new UserError(`the task ${config.task} is written in Python (class), which mlxlm cannot run`, {
      code: ExitCode.notFound,
      hint: `${path} says so. Take another task.`,
    });
  }
  const result = schema.safeParse(config);
  if (result.success) return result.data;
  const issue = deepestIssue(result.error.issues[0]!);
  const key = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    const [unknown] = issue.keys;
    const known = key.startsWith("fewshot_config") ? fewshotConfig.shape : schema.shape;
    const [similar] = nearest(unknown!, Object.keys(known), 1);
    throw new UserError(`${path}: the key "${key === "" ? unknown : `${key}.${unknown}`}" is not known`, {
      hint: similar ? `Did you mean ${similar}?` : "Take it out.",
    });
  }
  const value = issue.path.reduce<unknown>((inner, name) => (inner as Config | undefined)?.[name as string], config);
  throw new UserError(`${path}: ${key} is ${shown(value)}: ${issue.message.replace(/^Invalid[^:]*: /, "")}`, {
    hint: "Repair the task's file.",
  });
}

/** Of a choice of kinds that all failed, what the last one said. */
function deepestIssue(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== "invalid_union" || issue.errors.length === 0) return issue;
  const inner = issue.errors.at(-1)?.[0];
  return inner && inner.path.length > 0 ? { ...inner, path: [...issue.path, ...inner.path] } : issue;
}

function shown(value: unknown): string {
  if (value === undefined) return "missing";
  if (value instanceof PythonFunction) return String(value);
  return JSON.stringify(value).slice(0, 60);
}
