/** Kernels in Metal or CUDA source, compiled by MLX at run time. */
import { codeOf, type Dtype } from "./dtype";
import { native } from "./library";
import { beginMail, cFields, cString, writeInts } from "./mailbox";
import { checked, readHandles } from "./native";
import { handlesOf, wrapAll } from "./operand";
import type { Tensor } from "./tensor";

export interface KernelSource {
  name: string;
  inputNames: readonly string[];
  outputNames: readonly string[];
  /** The body of the kernel function. */
  source: string;
  /** What stands before the function: includes, helper functions. */
  header?: string;
  /** Copy inputs that are not row-major before the kernel sees them. */
  ensureRowContiguous?: boolean;
}

export interface KernelCall {
  inputs: readonly Tensor[];
  outputShapes: readonly (readonly number[])[];
  outputDtypes: readonly Dtype[];
  grid: readonly [number, number, number];
  threadgroup: readonly [number, number, number];
  /** Template arguments by name: integers, booleans, dtypes. */
  template?: Readonly<Record<string, number | boolean | Dtype>>;
  /** What outputs are filled with before the kernel runs. */
  initValue?: number;
  /** Print the generated source. */
  verbose?: boolean;
}

export type Kernel = (call: KernelCall) => Tensor[];

/** What both backends want to know of a kernel, in the order of the C side. */
function parts({ name, inputNames, outputNames, source, header = "", ensureRowContiguous = true }: KernelSource) {
  const names = cFields([...inputNames, ...outputNames]);
  return [
    cString(name),
    names.bytes,
    names.length,
    inputNames.length,
    cString(source),
    cString(header),
    ensureRowContiguous,
  ] as const;
}

/** @throws MlxError when called where there is no Metal device */
export function metalKernel({ atomicOutputs = false, ...kernel }: KernelSource & { atomicOutputs?: boolean }): Kernel {
  return caller(checked(native.mlxlm_metal_kernel(...parts(kernel), atomicOutputs)));
}

/** @throws MlxError where the library was not built for CUDA */
export function cudaKernel({ sharedMemory = 0, ...kernel }: KernelSource & { sharedMemory?: number }): Kernel {
  return caller(checked(native.mlxlm_cuda_kernel(...parts(kernel), sharedMemory)));
}

function templateCode(value: number | boolean | Dtype): [kind: number, value: number] {
  if (typeof value === "number") return [0, value];
  if (typeof value === "boolean") return [1, Number(value)];
  return [2, codeOf(value)];
}

function caller(id: number): Kernel {
  return ({
    inputs,
    outputShapes,
    outputDtypes,
    grid,
    threadgroup,
    template = {},
    initValue = Number.NaN,
    verbose = false,
  }) => {
    const names = cFields(Object.keys(template));
    beginMail();
    const count = writeInts(handlesOf(inputs));
    outputShapes.forEach((shape, i) => {
      writeInts([codeOf(outputDtypes[i]!), shape.length, ...shape]);
    });
    writeInts(grid);
    writeInts(threadgroup);
    for (const value of Object.values(template)) writeInts(templateCode(value));
    const { bytes, length } = names;
    return wrapAll(
      readHandles(native.mlxlm_call_kernel(id, count, outputShapes.length, bytes, length, initValue, verbose)),
    );
  };
}
