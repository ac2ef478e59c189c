/** The flags of `mlxlm server`: mlx-lm's, with its defaults but for what web pages may do, and our own. */
import { draftFlags } from "../src/cli/drafts";
import { flag } from "../src/cli/flags";
import { ggufFileFlags } from "../src/cli/gguf-file";
import { kvQuantizationFlags } from "../src/cli/kv-quantization";
import { promptStepFlags } from "../src/cli/prompt-steps";

export const serverFlags = {
  model: flag.path("folder, or repo of the Hugging Face hub; demo is the model inside mlxlm", {
    placeholder: "MODEL",
    positional: true,
  }),
  ...ggufFileFlags,
  adapterPath: flag.path("folder of a LoRA adapter for that model"),
  host: flag.text("the address to listen on", { default: "127.0.0.1", placeholder: "ADDRESS" }),
  port: flag.integer("the port; 0: one that is free", { default: 8080, min: 0, max: 65_535 }),
  apiKey: flag.text("ask every client for this key; MLXLM_API_KEY says it too", { placeholder: "KEY" }),
  unprotected: flag.switch("listen on other addresses than this machine's own without a key"),
  allowedHosts: flag.text("names by which clients call the server, beside its address", { placeholder: "NAME,…" }),
  allowedOrigins: flag.text("web pages that may ask: http://app.example, or * for any; none unless said", {
    placeholder: "ORIGIN,…",
  }),
  allowedModels: flag.text("models that clients may ask for beside --model; loaded when they do", {
    placeholder: "MODEL,…",
  }),
  adapters: flag.text(
    "adapters that clients may ask for by name; requests with different LoRA adapters share one batch",
    { placeholder: "NAME=PATH,…" },
  ),
  keepAlive: flag.text("unload a model that nobody has asked for in that time, as 5m; -1: never", {
    default: "-1",
    placeholder: "TIME",
  }),
  temp: flag.number("temperature where a request has none", { default: 0, min: 0 }),
  topP: flag.number("top-p where a request has none", { default: 1, min: 0, max: 1 }),
  topK: flag.integer("top-k where a request has none; 0: all tokens", { default: 0, min: 0 }),
  minP: flag.number("min-p where a request has none", { default: 0, min: 0, max: 1 }),
  maxTokens: flag.integer("tokens of an answer where a request has no limit; -1: as many as fit", {
    default: 512,
    min: -1,
  }),
  chatTemplate: flag.text("a chat template in place of the model's own", { default: "", placeholder: "JINJA" }),
  chatTemplateArgs: flag.json('variables of the chat template, as {"enable_thinking": false}'),
  useDefaultChatTemplate: flag.switch("accepted for mlx-lm's sake, without effect there as here"),
  decodeConcurrency: flag.integer("how many requests are answered side by side", { default: 32, min: 1, max: 4096 }),
  promptConcurrency: flag.integer("how many prompts are read side by side", { default: 8, min: 1, max: 4096 }),
  ...promptStepFlags,
  maxQueue: flag.integer("how many requests may wait; the next one is told to come again later", {
    default: 256,
    min: 0,
  }),
  maxMemory: flag.number("GB for weights and caches together; most of what is free unless said", {
    min: 0,
    placeholder: "GB",
  }),
  promptCacheSize: flag.integer("how many prompts are kept for those that begin alike", { default: 10, min: 0 }),
  promptCacheBytes: flag.text("how much memory they take at most, as 2GB", { placeholder: "SIZE" }),
  promptCacheDir: flag.path("folder in which they are kept when the server ends, for its next start", {
    placeholder: "FOLDER",
  }),
  ...kvQuantizationFlags,
  kvBits: flag.integer("quantize the KV cache to so many bits; requests are then answered one after the other", {
    min: 1,
    max: 8,
  }),
  draftModel: flag.path(
    "a smaller model with the same tokenizer, which proposes tokens; with drafts requests are answered one after the other",
    { placeholder: "MODEL" },
  ),
  ...draftFlags,
  maxBody: flag.text("the largest request", { default: "32MiB", placeholder: "SIZE" }),
  logLevel: flag.choice("what is written to stderr", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], {
    default: "INFO",
  }),
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
  pipeline: flag.switch("under mlxlm launch: give each rank some layers, not a part of each layer"),
};
