/** Layers, and the blocks that models share. */
export * from "./activations";
export * from "./attention";
export { BitLinear } from "./bit-linear";
export * from "./cache";
export * from "./channel-delta";
export * from "./checkpoint-shapes";
export * from "./conv";
export * from "./decoder";
export * from "./embedding";
export { type GatedDeltaInputs, gatedDeltaRule, ofLength } from "./gated-delta";
export { GatedDeltaNet, type GatedDeltaSizes } from "./gated-delta-net";
export * from "./grouped-routing";
export { intercept } from "./intercept";
export * from "./kimi-delta";
export {
  LatentAttention,
  type LatentAttentionSizes,
  LatentHeads,
  latentJoins,
} from "./latent-attention";
export { type Layer, Linear, type Packing, packing, type Quantizable, QuantizedLinear, rounded } from "./linear";
export * from "./losses";
export * from "./mamba-mixer";
export * from "./mamba2-mixer";
export * from "./masks";
export * from "./mlp";
export { Module, parameter, type Weights } from "./module";
export { MultiLinear, QuantizedMultiLinear } from "./multi-linear";
export * from "./norms";
export { fuseProjections, holdTransposes, type Joins, project, usualJoins } from "./projection";
export * from "./quantize";
export * from "./residual";
export * from "./rope";
export { yarnTemperature } from "./rope-frequencies";
export * from "./routing";
export * from "./selective-scan";
export { splitKeysValues } from "./split-keys-values";
export * from "./stack-experts";
export * from "./state-space";
export { type ExpertLayer, QuantizedSwitchLinear, SwitchGLU, SwitchLinear, SwitchMLP } from "./switch";
