/** Language models: architectures by name, and what they have in common. */
export type { Cache, CacheOptions } from "../nn";
export type { AwqFacts, ScaleGroup } from "./awq-facts";
export { CausalLM, type LanguageModel } from "./language-model";
export { type Architecture, architecture, createModel, modelTypes, modelTypesWith } from "./registry";
