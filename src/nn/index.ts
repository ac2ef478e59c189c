/** Layers, and the blocks that models share. */
export * from "./activations";
export { AltUp, type AltUpSizes } from "./altup";
export * from "./attention";
export { BitLinear } from "./bit-linear";
export * from "./block-selection";
export {
  BlockEmbedding,
  type BlockLayer,
  BlockLinear,
  BlockSwitchLinear,
  type BlockType,
  isBlockLayer,
  placeBlocks,
  takesBlocks,
} from "./blocks";
export * from "./cache";
export * from "./channel-delta";
export * from "./checkpoint-shapes";
export * from "./coarse";
export * from "./compressed-attention";
export * from "./conv";
export * from "./decoder";
export * from "./embedding";
export { type GatedDeltaInputs, gatedDeltaRule, ofLength } from "./gated-delta";
export { type DeltaLayer, decayOf, GatedDeltaNet, type GatedDeltaSizes, GroupedDeltaNet } from "./gated-delta-net";
export * from "./grouped-routing";
export { HadamardEmbedding, HadamardLinear } from "./hadamard-linear";
export * from "./hyper-connection";
export { intercept } from "./intercept";
export * from "./kimi-delta";
export * from "./latent-attention";
export {
  type Layer,
  Linear,
  nvfp4Largest,
  type Packing,
  packing,
  type Quantizable,
  QuantizedLinear,
  rounded,
  type StandIn,
} from "./linear";
export * from "./losses";
export * from "./mamba-mixer";
export * from "./mamba2-mixer";
export * from "./masks";
export * from "./mlp";
export { Module, parameter, type Weights } from "./module";
export { MultiLinear, QuantizedMultiLinear } from "./multi-linear";
export * from "./named-attention";
export * from "./normal-quantile";
export * from "./norms";
export * from "./per-layer-inputs";
export { Stage, withoutMessages } from "./pipeline";
export * from "./pool-indexer";
export * from "./pooled-attention";
export * from "./position-scale";
export { positionsFrom } from "./positions";
export { fuseProjections, holdTransposes, type Joins, project, usualJoins } from "./projection";
export * from "./quantize";
export * from "./residual";
export * from "./rope";
export { yarn as yarnFrequencies, yarnMagnitude, yarnTemperature } from "./rope-frequencies";
export * from "./routing";
export * from "./selective-scan";
export {
  behind,
  type DivideOptions,
  type Divisible,
  divideHeads,
  divideInner,
  divideNamedHeads,
  groupOf,
  type Headed,
  type HeadShare,
  innerPart,
  inputsOf,
  isSliceable,
  keepChannels,
  keepOutputs,
  keepPlaces,
  keptOf,
  outputsOf,
  piecesOf,
  type Range,
  RMSNormOfParts,
  type Split,
  SumOfParts,
  scaled,
  shardModel,
  shareHeads,
} from "./shard";
export * from "./shared-rows";
export { SharingAttention, type SharingAttentionSizes } from "./sharing-attention";
export * from "./sigmoid-routing";
export * from "./sparse-indexer";
export { splitKeysValues } from "./split-keys-values";
export * from "./stack-experts";
export * from "./state-space";
export { SwitchGLU, SwitchMLP } from "./switch";
export { type ExpertLayer, QuantizedSwitchLinear, SwitchLinear } from "./switch-linear";
export { type AttentionLayers, attendRows, attendToken, type GatedLayers, layerRows, layerToken } from "./token-steps";
