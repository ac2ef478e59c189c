/** The flags of `mlxlm benchmark`: mlx-lm's, with its defaults, and `--against`. */
import { flag } from "../src/cli/flags";
import { ggufFileFlags } from "../src/cli/gguf-file";
import { promptStepFlags } from "../src/cli/prompt-steps";

export const benchmarkFlags = {
  model: flag.path("folder, or repo of the Hugging Face hub; demo is the model inside mlxlm", {
    placeholder: "MODEL",
    positional: true,
  }),
  ...ggufFileFlags,
  promptTokens: flag.integer("length of the prompt", { alias: ["p"], default: 512, min: 1 }),
  generationTokens: flag.integer("how many tokens are generated", {
    alias: ["g"],
    default: 1024,
    min: 1,
  }),
  batchSize: flag.integer("how many prompts at a time", { alias: ["b"], default: 1, min: 1 }),
  numTrials: flag.integer("how many timed runs, after one to warm up", { alias: ["n"], default: 5, min: 1 }),
  ...promptStepFlags,
  delay: flag.integer("seconds to wait before each run", { default: 0, min: 0 }),
  against: flag.path("measure the mlx-lm of this Python too, in turn, and print the ratio", { placeholder: "PYTHON" }),
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  pipeline: flag.switch("under mlxlm launch: give each rank some layers, not a part of each layer"),
  quantizeActivations: flag.switch("quantize activations too; on GPUs", { alias: ["qa"] }),
};
