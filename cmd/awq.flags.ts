/** The flags of `mlxlm awq`: mlx-lm's, with its defaults; and other data, and going on. */
import { flag } from "../src/cli/flags";

export const awqFlags = {
  model: flag.path("the model in floating point: a folder, or a repo of the Hugging Face hub", {
    alias: ["m"],
    default: "mlx-community/Qwen2.5-7B-Instruct-bf16",
    placeholder: "MODEL",
  }),
  mlxPath: flag.path("folder to save to; it must not exist yet", { default: "mlx_model" }),
  bits: flag.integer("bits of a weight", { default: 4, min: 2, max: 8 }),
  groupSize: flag.integer("how many weights share a scale", { default: 64, min: 1 }),
  embedBits: flag.integer("bits of the embedding and the head", { default: 4, min: 2, max: 8 }),
  embedGroupSize: flag.integer("how many of their weights share a scale", { default: 32, min: 1 }),
  numSamples: flag.integer("rows of calibration data; -1: all", { default: 128, min: -1 }),
  sequenceLength: flag.integer("tokens in a row", { default: 512, min: 2 }),
  nGrid: flag.integer("how many strengths and limits the searches try", { default: 20, min: 1, max: 1000 }),
  seed: flag.integer("seed of the random numbers", { default: 123, min: 0 }),
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  dataPath: flag.path(
    "calibration data: a file or folder with text, messages or prompts, or a dataset of the hub (mlx-lm's text)",
    {
      placeholder: "DATA",
    },
  ),
  resume: flag.switch("go on with work on --mlx-path that did not end: blocks that are done are taken over"),
};
