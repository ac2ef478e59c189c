/** The flags of `mlxlm lora`: mlx-lm's, one for packing and one to go on. Those that are not given come from the YAML file, then from its defaults. */
import { flag } from "../src/cli/flags";
import { fineTuneTypes, optimizerNames } from "../src/tune/names";

export const loraFlags = {
  model: flag.path("the model: a folder, or a repo of the Hugging Face hub", { placeholder: "MODEL" }),
  train: flag.switch("train: write an adapter"),
  data: flag.path("folder with train.jsonl, valid.jsonl and test.jsonl (or .parquet), or a dataset of the hub", {
    placeholder: "DATA",
  }),
  fineTuneType: flag.choice("what is trained: adapters, or the blocks' own weights (lora)", fineTuneTypes),
  optimizer: flag.choice("the optimizer (adam)", optimizerNames),
  maskPrompt: flag.switch("only answers count in the loss"),
  numLayers: flag.integer("how many blocks are trained, from the last; -1: all (16)"),
  batchSize: flag.integer("how many samples a batch has (4)", { min: 1 }),
  iters: flag.integer("how many steps to train (1000)", { min: 0 }),
  valBatches: flag.integer("how many batches a validation takes; -1: all (25)", { min: -1 }),
  learningRate: flag.number("the learning rate (1e-5)"),
  stepsPerReport: flag.integer("steps between two reports (10)", { min: 1 }),
  stepsPerEval: flag.integer("steps between two validations (200)", { min: 1 }),
  gradAccumulationSteps: flag.integer("steps whose gradients make one update (1)", { min: 1 }),
  resumeAdapterFile: flag.path("saved weights to begin with"),
  adapterPath: flag.path("folder of the adapter (adapters)"),
  saveEvery: flag.integer("steps between two checkpoints (100)", { min: 1 }),
  test: flag.switch("measure the loss on test.jsonl, after training or of a saved adapter"),
  testBatches: flag.integer("how many batches the test takes; -1: all (500)", { min: -1 }),
  maxSeqLength: flag.integer("longer samples are cut (2048)", { min: 2 }),
  packing: flag.switch("train on rows of --max-seq-length with several samples each, in place of padded batches"),
  config: flag.path("YAML file with settings; flags come first", { alias: ["c"] }),
  gradCheckpoint: flag.switch("compute blocks again in the backward pass, to save memory"),
  clearCacheThreshold: flag.text("memory to keep for reuse between steps, such as 500M (0)", { placeholder: "SIZE" }),
  reportTo: flag.text("write figures to files for wandb, swanlab or both: wandb,swanlab", { placeholder: "SERVICES" }),
  projectName: flag.text("name of the project there", { placeholder: "NAME" }),
  seed: flag.integer("seed of the random numbers (0)", { min: 0 }),
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  resume: flag.switch("go on with the training in --adapter-path, with its settings, exactly where it ended"),
};
