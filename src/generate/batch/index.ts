/** Several sequences at a time. */
export { type BatchGenerateOptions, type BatchResponse, batchGenerate } from "./batch-generate";
export { BatchStepper } from "./batch-stepper";
export type { TokenEvent } from "./generation-batch";
export { type BatchEvent, BatchGenerator, type BatchGeneratorOptions, type PrefillEvent } from "./generator";
export type { Ended, Joining, Lead, Lockstep, StepPlan } from "./lockstep";
export type { BatchRequest } from "./sequence";
