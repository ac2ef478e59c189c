/** The flags of `mlxlm perplexity`: mlx-lm's, with its defaults. */
import { flag } from "../src/cli/flags";
import { ggufFileFlags } from "../src/cli/gguf-file";

export const perplexityFlags = {
  model: flag.path("folder, or repo of the Hugging Face hub; demo is the model inside mlxlm", {
    placeholder: "MODEL",
    positional: true,
  }),
  ...ggufFileFlags,
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  batchSize: flag.integer("how many rows at a time", { default: 8, min: 1 }),
  sequenceLength: flag.integer("tokens in a row", { default: 512, min: 2 }),
  numSamples: flag.integer("how many rows; -1: all", { default: 256, min: -1 }),
  dataPath: flag.path("file or folder with text, messages or prompts, or a dataset of the Hugging Face hub", {
    default: "allenai/tulu-3-sft-mixture",
    placeholder: "DATA",
  }),
  seed: flag.integer("seed of the random numbers", { default: 123, min: 0, max: 0xffffffff }),
};
