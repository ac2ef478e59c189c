/** Sampling: from logits to a token, all on the device. */
export { type LogitsProcessor, type LogitsProcessorOptions, makeLogitsProcessors } from "./processors";
export { drawsAs, dropsNothing, greedy, makeSampler, type Sampler, type SamplerOptions } from "./sampler";
export { type SeededSampler, seeded } from "./seeded";
