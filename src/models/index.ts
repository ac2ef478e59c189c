/** Language models: architectures by name, and what they have in common. */
export type { Cache } from "../nn";
export { type CacheOptions, CausalLM, type LanguageModel } from "./language-model";
export { type Architecture, architecture, createModel, modelTypes } from "./registry";
