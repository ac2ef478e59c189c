/** The flags of `mlxlm dwq`: mlx-lm's, with its defaults; and going on. */
import { flag } from "../src/cli/flags";

export const dwqFlags = {
  model: flag.path("the original: a folder, or a repo of the Hugging Face hub", {
    alias: ["m"],
    placeholder: "MODEL",
  }),
  quantizedModel: flag.path("the quantized model that learns; the original, quantized here, unless given", {
    placeholder: "MODEL",
  }),
  mlxPath: flag.path("folder to save to; it must not exist yet", { default: "mlx_model" }),
  bits: flag.integer("bits of a weight", { default: 4, min: 2, max: 8 }),
  groupSize: flag.integer("how many weights share a scale", { default: 64, min: 1 }),
  numSamples: flag.integer("samples to learn from", { default: 2048, min: 1 }),
  maxSeqLength: flag.integer("longer samples are cut", { default: 1025, min: 2 }),
  seed: flag.integer("seed of the random numbers", { default: 123, min: 0, max: 0xffffffff }),
  learningRate: flag.number("the learning rate", { default: 1e-6 }),
  batchSize: flag.integer("how many samples a batch has", { default: 4, min: 1 }),
  dataPath: flag.path("a file or folder with text, messages or prompts, or a dataset of the Hugging Face hub", {
    default: "allenai/tulu-3-sft-mixture",
    placeholder: "DATA",
  }),
  gradCheckpoint: flag.switch("compute blocks again in the backward pass, to save memory"),
  targetDir: flag.path(
    "folder to save the original's predictions to, or take them from; it is then not in memory with the other",
  ),
  targetsOnly: flag.switch("compute those predictions and end"),
  pipeline: flag.switch("split the model over several machines", { notYet: true }),
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  resume: flag.switch("go on with a training for --mlx-path that did not end"),
};
