/** The flags of `mlxlm dynamic_quant`: mlx-lm's, with its defaults; and other data, and going on. */
import { flag } from "../src/cli/flags";

export const dynamicQuantFlags = {
  model: flag.path("the model in floating point: a folder, or a repo of the Hugging Face hub", {
    alias: ["m"],
    default: "Qwen/Qwen3-0.6B-base",
    placeholder: "MODEL",
  }),
  mlxPath: flag.path("folder to save to; it must not exist yet", { default: "mlx_model" }),
  seed: flag.integer("seed of the random numbers", { default: 123, min: 0 }),
  sensitivities: flag.path("file with sensitivities from an earlier run, in place of an estimate"),
  targetBpw: flag.number(
    "bits per weight that the model is to take; unless given, the nearest to the default that it can",
    { default: 5 },
  ),
  lowBits: flag.integer("bits of a weight in most layers", { default: 4, min: 2, max: 8 }),
  lowGroupSize: flag.integer("how many of their weights share a scale", { default: 64, min: 1 }),
  highBits: flag.integer("bits of a weight in the layers that feel it most", { default: 5, min: 2, max: 8 }),
  highGroupSize: flag.integer("how many of those share a scale", { default: 64, min: 1 }),
  reportPpl: flag.switch("measure the perplexity on the calibration data, before and after"),
  gradCheckpoint: flag.switch("compute blocks again in the backward pass, to save memory"),
  accumulationDtype: flag.choice(
    "accepted; gradients are not summed here: each batch gives one number a layer",
    ["float32", "bfloat16"],
    { default: "float32" },
  ),
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  dataPath: flag.path(
    "calibration data: a file or folder with text, messages or prompts, or a dataset of the hub (mlx-lm's text)",
    { placeholder: "DATA" },
  ),
  numSamples: flag.integer("rows of calibration data; -1: all", { default: -1, min: -1 }),
  sequenceLength: flag.integer("tokens in a row", { default: 512, min: 2 }),
  resume: flag.switch("go on with work on --mlx-path that did not end: batches that are done are taken over"),
};
