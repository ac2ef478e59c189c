/** The tensor façade: MLX's operations in TypeScript. `import * as mx from "../mlx"`. */
export { blockMatmul, blockVectors, gatherBlockMm, unpackBlocks } from "./blocks";
export { liveFunctions } from "./closures";
export {
  type Compiled,
  type CompileOptions,
  compile,
  enableCompile,
  exportFunction,
  importFunction,
  type State,
} from "./compile";
export * from "./creation";
export {
  activeMemory,
  asyncEval,
  availableMemory,
  bufferSize,
  cacheMemory,
  clearCache,
  type Device,
  defaultDevice,
  deviceCount,
  deviceInfo,
  enableCpuKernels,
  evaluate,
  evaluate as eval,
  isAvailable,
  isEvaluated,
  isScheduled,
  memoryLimit,
  newStream,
  onCpu,
  peakMemory,
  preferHugePages,
  releaseMemory,
  resetPeakMemory,
  Stream,
  setCacheLimit,
  setDefaultDevice,
  setDefaultStream,
  setMemoryLimit,
  setMetallibPath,
  setWiredLimit,
  synchronize,
  usesCuda,
  withStream,
} from "./devices";
export * as distributed from "./distributed";
export {
  bfloat16,
  bool,
  complex64,
  type Dtype,
  finfo,
  float16,
  float32,
  float64,
  int8,
  int16,
  int32,
  int64,
  isFloating,
  isInexact,
  isInteger,
  itemSize,
  promoteTypes,
  uint8,
  uint16,
  uint32,
  uint64,
} from "./dtype";
export * from "./elementwise";
export { MlxError } from "./error";
export * as fast from "./fast";
export * as fft from "./fft";
export * from "./files";
export * as grammar from "./grammar";
export { type HostArray, highestOf, type NestedList } from "./host";
export { ellipsis, type Index, newaxis, type Slice, slice, sliceAxis, updateAxis, updateBlock } from "./indexing";
export * as linalg from "./linalg";
export type { Operand } from "./operand";
export * from "./products";
export * from "./quantized";
export * as random from "./random";
export * from "./reductions";
export { StepMemory, sparingly } from "./run-ahead";
export { keep, liveHandles, release, scope } from "./scope";
export * from "./shaping";
export { clearSurplus } from "./spare-memory";
export { Tensor } from "./tensor";
export * from "./transforms";
export * from "./tree";
