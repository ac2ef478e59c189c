/** The flags of `mlxlm cache_prompt`: mlx-lm's, with its defaults. */
import { flag } from "../src/cli/flags";
import { ggufFileFlags } from "../src/cli/gguf-file";
import { kvQuantizationFlags } from "../src/cli/kv-quantization";
import { promptStepFlags } from "../src/cli/prompt-steps";

export const cachePromptFlags = {
  model: flag.path("folder, or repo of the Hugging Face hub; demo is the model inside mlxlm", {
    placeholder: "MODEL",
    default: "mlx_model",
  }),
  ...ggufFileFlags,
  prompt: flag.text("the prompt; - reads stdin", { required: true }),
  promptCacheFile: flag.path("where to write the cache", { placeholder: "FILE", required: true }),
  eosToken: flag.text("a further token that ends answers from this cache"),
  maxKvSize: flag.integer("keep only so many tokens in the KV cache", { min: 1 }),
  ...kvQuantizationFlags,
  maxMemory: flag.number("stop with an error when more GB of memory are in use", { min: 0, placeholder: "GB" }),
  ...promptStepFlags,
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  pipeline: flag.switch("under mlxlm launch: give each rank some layers, not a part of each layer"),
  adapterPath: flag.path("folder of a LoRA adapter"),
};
