/** The flags of `mlxlm gptq`: mlx-lm's, with its defaults; and other data, and going on. */
import { flag } from "../src/cli/flags";

export const gptqFlags = {
  model: flag.path("the model in floating point: a folder, or a repo of the Hugging Face hub", {
    alias: ["m"],
    default: "Qwen/Qwen3-0.6B-base",
    placeholder: "MODEL",
  }),
  mlxPath: flag.path("folder to save to; it must not exist yet", { default: "mlx_model" }),
  bits: flag.integer("bits of a weight in linear layers", { default: 4, min: 2, max: 8 }),
  groupSize: flag.integer("how many of their weights share a scale", { default: 64, min: 1 }),
  fallbackBits: flag.integer("bits of a weight elsewhere: in embeddings", { default: 6, min: 2, max: 8 }),
  fallbackGroupSize: flag.integer("how many of those share a scale", { default: 64, min: 1 }),
  numSamples: flag.integer("rows of calibration data; -1: all", { default: -1, min: -1 }),
  sequenceLength: flag.integer("tokens in a row", { default: 512, min: 2 }),
  seed: flag.integer("seed of the random numbers", { default: 123, min: 0 }),
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  dataPath: flag.path(
    "calibration data: a file or folder with text, messages or prompts, or a dataset of the hub (mlx-lm's text)",
    { placeholder: "DATA" },
  ),
  resume: flag.switch("go on with work on --mlx-path that did not end: blocks that are done are taken over"),
};
