/** Layers, and the blocks that models share. */
export * from "./activations";
export * from "./attention";
export { BitLinear } from "./bit-linear";
export * from "./cache";
export * from "./conv";
export * from "./decoder";
export * from "./embedding";
export { type Layer, Linear, type Packing, packing, type Quantizable, QuantizedLinear } from "./linear";
export * from "./losses";
export * from "./masks";
export * from "./mlp";
export { Module, parameter, type Weights } from "./module";
export * from "./norms";
export { fuseProjections, holdTransposes, project } from "./projection";
export * from "./quantize";
export * from "./rope";
export * from "./state-space";
export { QuantizedSwitchLinear, SwitchGLU, SwitchLinear } from "./switch";
