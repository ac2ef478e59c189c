/** The flags of `mlxlm evaluate`: mlx-lm's, with its defaults, and the folders that tasks come from. */
import { flag } from "../src/cli/flags";
import { ggufFileFlags } from "../src/cli/gguf-file";

export const evaluateFlags = {
  model: flag.path("folder, or repo of the Hugging Face hub; demo is the model inside mlxlm", {
    placeholder: "MODEL",
    positional: true,
    required: true,
  }),
  ...ggufFileFlags,
  tasks: flag.list("tasks, groups or tags of lm-evaluation-harness, or YAML files; list: all there are", {
    placeholder: "TASK …",
  }),
  includePath: flag.list("folders with task files of your own", { placeholder: "FOLDER …" }),
  tasksDir: flag.path("lm-evaluation-harness: a checkout, or a Python environment; else an installed one is found", {
    placeholder: "FOLDER",
  }),
  outputDir: flag.path("folder for the file of results", { default: ".", placeholder: "FOLDER" }),
  batchSize: flag.integer("how many sequences at a time", { default: 8, min: 1 }),
  numShots: flag.integer("how many examples a question comes with, in place of the task's own number", { min: 0 }),
  maxTokens: flag.integer("generate at most so many tokens, in place of the task's own number", { min: 1 }),
  limit: flag.integer("take so many rows of each task", { min: 1 }),
  seed: flag.integer("seed of the random numbers", { default: 123, min: 0 }),
  fewshotAsMultiturn: flag.switch("give examples as turns of a chat, not as one turn"),
  applyChatTemplate: flag.switch("give prompts as a chat; the default where the model has a chat template"),
  noApplyChatTemplate: flag.switch("give prompts as plain text"),
  chatTemplateArgs: flag.json("further variables of the chat template"),
  confirmRunUnsafeCode: flag.switch("accepted; mlxlm runs no code that a model writes"),
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  temp: flag.number("temperature; 0 always takes the most likely token", { default: 0, min: 0 }),
  topP: flag.number("keep the likeliest tokens that have this probability together", { default: 1, min: 0, max: 1 }),
  topK: flag.integer("keep so many of the likeliest tokens; 0 or less: all", { default: 0 }),
  logSamples: flag.switch("write what is known of each row too, a file a task"),
};
