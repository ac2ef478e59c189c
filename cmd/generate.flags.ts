/** The flags of `mlxlm generate`: mlx-lm's, with its defaults. */
import { answerFormatFlags } from "../src/cli/answer-format";
import { draftFlags } from "../src/cli/drafts";
import { flag } from "../src/cli/flags";
import { ggufFileFlags } from "../src/cli/gguf-file";
import { kvQuantizationFlags } from "../src/cli/kv-quantization";
import { promptStepFlags } from "../src/cli/prompt-steps";

export const generateFlags = {
  model: flag.path("folder, or repo of the Hugging Face hub; demo is the model inside mlxlm", {
    placeholder: "MODEL",
    positional: true,
  }),
  ...ggufFileFlags,
  prompt: flag.text("the prompt; - reads stdin, as a pipe without --prompt does; \\n and \\t are understood", {
    alias: ["p"],
    default: "hello",
    positional: true,
  }),
  systemPrompt: flag.text("a system message ahead of the prompt"),
  prefillResponse: flag.text("the beginning of the answer, which the model continues"),
  maxTokens: flag.integer("generate at most so many tokens; -1: no limit", { alias: ["m"], default: 100, min: -1 }),
  temp: flag.number("temperature; 0 always takes the most likely token", { default: 0, min: 0 }),
  topP: flag.number("keep the likeliest tokens that have this probability together", { default: 1, min: 0, max: 1 }),
  minP: flag.number("drop tokens below this share of the likeliest one", { default: 0, min: 0, max: 1 }),
  topK: flag.integer("keep so many of the likeliest tokens; 0 or less: all", { default: 0 }),
  xtcProbability: flag.number("how often XTC drops the likeliest tokens", { default: 0, min: 0, max: 1 }),
  xtcThreshold: flag.number("from which probability XTC counts a token as likely", { default: 0.1, min: 0, max: 0.5 }),
  minTokensToKeep: flag.integer("how many tokens min-p leaves at least", { default: 1, min: 1 }),
  seed: flag.integer("seed of the random numbers", { min: 0 }),
  ...answerFormatFlags,
  ignoreChatTemplate: flag.switch("feed the prompt as it is"),
  useDefaultChatTemplate: flag.switch("accepted for mlx-lm's sake, without effect there as here"),
  chatTemplateConfig: flag.json("further variables of the chat template"),
  extraEosToken: flag.list("further tokens, or their ids, that end the answer"),
  verbose: flag.truth("print figures beside the answer", { default: true }),
  maxKvSize: flag.integer("keep only so many tokens in the KV cache", { min: 1 }),
  maxMemory: flag.number("stop with an error when more GB of memory are in use", { min: 0, placeholder: "GB" }),
  ...promptStepFlags,
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  pipeline: flag.switch("under mlxlm launch: give each rank some layers, not a part of each layer"),
  adapterPath: flag.path("folder of a LoRA adapter"),
  image: flag.list(
    "images beside the prompt, of models that see; they stand ahead of it unless it has places for them",
    {
      placeholder: "FILE …",
    },
  ),
  promptCacheFile: flag.path("continue from a KV cache that cache_prompt has saved", { placeholder: "FILE" }),
  quantizeActivations: flag.switch("quantize activations too; on GPUs", { alias: ["qa"] }),
  ...kvQuantizationFlags,
  draftModel: flag.path("a smaller model with the same tokenizer, which proposes tokens", { placeholder: "MODEL" }),
  ...draftFlags,
};
