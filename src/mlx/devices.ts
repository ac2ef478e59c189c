/** Devices, streams, evaluation, memory. Sizes are in bytes. */
import { totalmem } from "node:os";
import { MlxError } from "./error";
import { native } from "./library";
import { beginMail, cString, writeInts } from "./mailbox";
import { checked, readFields } from "./native";
import type { Tensor } from "./tensor";
import { tensorsOf } from "./tree";

export type Device = "cpu" | "gpu";

const deviceCode = (device: Device) => (device === "cpu" ? 0 : 1);

/** Whether the library was built for Metal or CUDA and finds such a device. */
export function isAvailable(backend: "metal" | "cuda"): boolean {
  return checked(backend === "metal" ? native.mlxlm_metal_available() : native.mlxlm_cuda_available()) === 1;
}

/** Turns the CPU kernels of ours on, or off in favour of MLX's own operations; MLXLM_CPU_KERNELS=0 begins with them off. */
export function enableCpuKernels(on: boolean): void {
  checked(native.mlxlm_enable_cpu_kernels(on));
}

export function deviceCount(device: Device): number {
  return checked(native.mlxlm_device_count(deviceCode(device)));
}

export function defaultDevice(): Device {
  return checked(native.mlxlm_default_device()) === 0 ? "cpu" : "gpu";
}

/** Whether operations run on an NVIDIA GPU unless told otherwise. */
export const usesCuda = () => defaultDevice() === "gpu" && isAvailable("cuda");

/** @throws MlxError where there is no such device */
export function setDefaultDevice(device: Device, index = 0): void {
  checked(native.mlxlm_set_default_device(deviceCode(device), index));
}

/** Facts about the device: its name, architecture and, on GPUs, memory sizes as numbers. */
export function deviceInfo(device: Device = defaultDevice(), index = 0): Record<string, string | number> {
  const words = readFields(native.mlxlm_device_info(deviceCode(device), index));
  const facts: Record<string, string | number> = {};
  for (let i = 0; i + 1 < words.length; i += 2) {
    const value = words[i + 1]!;
    facts[words[i]!] = /^\d+$/.test(value) ? Number(value) : value;
  }
  return facts;
}

/** A queue of work on a device. Streams belong to the engine thread. */
export class Stream {
  constructor(
    readonly id: number,
    readonly device: Device,
  ) {}
}

export function newStream(device: Device = defaultDevice(), index = 0): Stream {
  return new Stream(checked(native.mlxlm_new_stream(deviceCode(device), index)), device);
}

export function setDefaultStream(stream: Stream): void {
  checked(native.mlxlm_set_default_stream(stream.id));
}

let currentStream: Stream | null = null;

/** Places the ops that `fn` makes on the stream. Synchronous. */
export function withStream<T>(stream: Stream, fn: () => T): T {
  const before = currentStream;
  const use = (next: Stream | null) => {
    currentStream = next;
    checked(native.mlxlm_use_stream(next?.id ?? -1));
  };
  use(stream);
  try {
    return fn();
  } finally {
    use(before);
  }
}

let cpuStream: Stream | null = null;

/** Places the ops that `fn` makes on the CPU: for those that have no GPU kernel. */
export function onCpu<T>(fn: () => T): T {
  if (defaultDevice() === "cpu") return fn();
  cpuStream ??= newStream("cpu");
  return withStream(cpuStream, fn);
}

function send(trees: readonly unknown[]): number {
  beginMail();
  return writeInts(tensorsOf(trees).map((tensor: Tensor) => tensor.handle));
}

/** Computes every tensor of the trees, and waits. */
export function evaluate(...trees: unknown[]): void {
  checked(native.mlxlm_eval(send(trees)));
}

/** Starts computing every tensor of the trees; reading one later waits for it. */
export function asyncEval(...trees: unknown[]): void {
  checked(native.mlxlm_async_eval(send(trees)));
}

/** Whether the tensor's values exist already. */
export function isEvaluated(x: Tensor): boolean {
  return checked(native.mlxlm_is_evaluated(x.handle)) === 1;
}

/** Whether the tensor's values exist, or an evaluation that has begun will make them. */
export function isScheduled(x: Tensor): boolean {
  return checked(native.mlxlm_is_scheduled(x.handle)) === 1;
}

/** Waits for a stream, or for the default one. */
export function synchronize(stream?: Stream): void {
  checked(native.mlxlm_synchronize(stream?.id ?? -1));
}

/** Memory in use by tensors. */
export const activeMemory = (): number => checked(native.mlxlm_active_memory());

/** The most that was in use since the start or the last reset. */
export const peakMemory = (): number => checked(native.mlxlm_peak_memory());

/** Memory that is free but held for reuse. */
export const cacheMemory = (): number => checked(native.mlxlm_cache_memory());

/**
 * Memory that the process may still take: what the machine, its swap and the process's control groups have left. All of
 * the machine's where the system does not say.
 */
export function availableMemory(): number {
  const known = native.mlxlm_available_memory();
  return known < 0 ? totalmem() : known;
}

export const memoryLimit = (): number => checked(native.mlxlm_memory_limit());

export function resetPeakMemory(): void {
  checked(native.mlxlm_reset_peak_memory());
}

/** Gives held memory back to the system. */
export function clearCache(): void {
  checked(native.mlxlm_clear_cache());
}

/**
 * Gives all free memory of the process back to the system, what the C library keeps of it too. It takes milliseconds, and
 * who allocates next takes longer: for when work is done.
 */
export function releaseMemory(): void {
  checked(native.mlxlm_release_memory());
}

/**
 * Has the system move the trees' tensors into huge pages meanwhile: the CPU then reads them up to half as fast again. For
 * what is read for every token, a model's weights. They must be evaluated. Nothing on a GPU, nor where a system has none.
 */
export function preferHugePages(...trees: unknown[]): void {
  if (defaultDevice() === "cpu") checked(native.mlxlm_prefer_huge_pages(send(trees)));
}

function size(bytes: number): number {
  if (!Number.isFinite(bytes) || bytes < 0) throw new MlxError(`a memory limit must be 0 or more bytes, not ${bytes}`);
  return bytes;
}

/** Sets the guideline for memory in use and returns the previous one. */
export const setMemoryLimit = (bytes: number): number => checked(native.mlxlm_set_memory_limit(size(bytes)));

/** Sets how much freed memory is held for reuse and returns the previous limit. */
export const setCacheLimit = (bytes: number): number => checked(native.mlxlm_set_cache_limit(size(bytes)));

/** Sets how much memory stays resident on the GPU (Metal) and returns the previous limit. */
export const setWiredLimit = (bytes: number): number => checked(native.mlxlm_set_wired_limit(size(bytes)));

/** Memory behind the trees' tensors, each buffer counted once. They must be evaluated. */
export function bufferSize(...trees: unknown[]): number {
  return checked(native.mlxlm_buffer_size(send(trees)));
}

/** Where MLX looks for its Metal kernels; before the first op. */
export function setMetallibPath(path: string): void {
  checked(native.mlxlm_set_metallib_path(cString(path)));
}
