/** Language models: architectures by name, and what they have in common. */
export type { Cache, CacheOptions } from "../nn";
export type { AwqFacts, ScaleGroup } from "./awq-facts";
export { changeOf, type JoinedTensor, type MergedTensors } from "./gguf/changes";
export type { GgufDescription, GgufFacts, GgufField } from "./gguf/facts";
export { ropeFactorsName, scalingOf, stretchNames } from "./gguf/llama3-scaling";
export { divided, type Place, TensorNames } from "./gguf/names";
export type { ImageForm, SeeingModel } from "./images";
export { CausalLM, type LanguageModel } from "./language-model";
export type { DraftHead } from "./mtp/draft-head";
export { makeDraftHead } from "./mtp/make-head";
export { pipelineModel, stageOf } from "./pipeline";
export {
  type Architecture,
  architecture,
  architectureOf,
  createModel,
  type GgufModelType,
  ggufArchitecture,
  ggufNames,
  modelTypes,
  modelTypesWith,
} from "./registry";
export { type SplitModel, splitAtHead } from "./split-at-head";
