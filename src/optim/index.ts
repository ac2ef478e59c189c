/** Optimizers, schedules, gradient tools. */
export * from "./adafactor";
export * from "./adam";
export * from "./clip";
export * from "./muon";
export { type LearningRate, Optimizer } from "./optimizer";
export * from "./schedules";
export * from "./sgd";
