/** Language models: architectures by name, and what they have in common. */
export type { Cache, CacheOptions } from "../nn";
export type { AwqFacts, ScaleGroup } from "./awq-facts";
export type { GgufDescription, GgufFacts, GgufField } from "./gguf/facts";
export { ropeFactorsName, stretches, usualBands } from "./gguf/llama3-scaling";
export { CausalLM, type LanguageModel } from "./language-model";
export {
  type Architecture,
  architecture,
  architectureOf,
  createModel,
  ggufArchitecture,
  ggufNames,
  modelTypes,
  modelTypesWith,
} from "./registry";
