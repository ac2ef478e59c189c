/** The flags of `mlxlm chat`: mlx-lm's, with its defaults. */
import { answerFormatFlags } from "../src/cli/answer-format";
import { settingFlags } from "../src/cli/chat/settings";
import { draftFlags } from "../src/cli/drafts";
import { flag } from "../src/cli/flags";
import { ggufFileFlags } from "../src/cli/gguf-file";
import { promptStepFlags } from "../src/cli/prompt-steps";

export const chatFlags = {
  model: flag.path("folder, or repo of the Hugging Face hub; demo is the model inside mlxlm", {
    placeholder: "MODEL",
    positional: true,
  }),
  ...ggufFileFlags,
  systemPrompt: flag.text("a system message ahead of the conversation"),
  ...settingFlags,
  ...answerFormatFlags,
  maxKvSize: flag.integer("keep only so many tokens in the KV cache, and forget the oldest", { min: 1 }),
  maxMemory: flag.number("stop with an error when more GB of memory are in use", { min: 0, placeholder: "GB" }),
  ...promptStepFlags,
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  ...draftFlags,
  adapterPath: flag.path("folder of a LoRA adapter"),
  image: flag.list("images that the first message is about, of models that see", { placeholder: "FILE …" }),
  pipeline: flag.switch("under mlxlm launch: give each rank some layers, not a part of each layer"),
};
