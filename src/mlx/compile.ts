/**
 * Compiled functions: traced once per structure of arguments, then run as one fused graph. On the CPU the function runs
 * as it is (MLX would call a C++ compiler on the user's machine for every fused kernel, with equal results), unless
 * MLXLM_COMPILE=1.
 */
import { environment } from "../environment";
import { register } from "./closures";
import { defaultDevice } from "./devices";
import { native } from "./library";
import { beginMail, cString, mail, writeInt, writeInts } from "./mailbox";
import { checked, type Handle, readHandles } from "./native";
import { handlesOf, wrapAll } from "./operand";
import { keep, release } from "./scope";
import { Tensor } from "./tensor";
import { refill, tensorsOf } from "./tree";

/** Something that a compiled function reads or writes beside its arguments: a random key, weights, optimizer state. */
export interface State {
  /** The tensors, as a tree whose structure stays. */
  get(): unknown;
  /** Takes new tensors in the same structure. */
  set(tree: never): void;
}

export interface CompileOptions {
  /** Do not trace again when shapes change. Only for functions whose ops don't depend on shapes. */
  shapeless?: boolean;
  /** State that the function reads. */
  inputs?: readonly State[];
  /** State that the function replaces. */
  outputs?: readonly State[];
}

/** "1": always, "0": never; else on the GPU only. */
const wish = environment("MLXLM_COMPILE");

const enabled = () => wish === "1" || (wish !== "0" && defaultDevice() === "gpu");

interface Trace {
  id: number;
  /** The result as it was traced; its tensors are replaced at each call. */
  result: unknown;
}

/** Arguments without their tensors: what a trace depends on besides shapes and dtypes. */
function structureOf(args: readonly unknown[]): string {
  if (args.every((arg) => arg instanceof Tensor)) return "tensors";
  return JSON.stringify(args, (_, value) => (value instanceof Tensor ? "\u0001" : value));
}

const statesOf = (states: readonly State[]) => states.map((state) => state.get());

function setAll(states: readonly State[], trees: readonly unknown[]): void {
  states.forEach((state, i) => {
    state.set(trees[i] as never);
  });
}

/** `dispose` forgets what was traced, and lets go of all that the function holds; a later call traces again. */
export type Compiled<F> = F & { dispose(): void };

// biome-ignore lint/suspicious/noExplicitAny: arguments are whatever the wrapped function takes
export function compile<F extends (...args: any[]) => unknown>(fn: F, options: CompileOptions = {}): Compiled<F> {
  const { shapeless = false, inputs = [], outputs = [] } = options;
  const traces = new Map<string, Trace>();

  const trace = (args: unknown[]): Trace => {
    const made: Trace = { id: -1, result: undefined };
    const call = (handles: Handle[] | undefined): Handle[] => {
      const tensors = wrapAll(handles!).values();
      const replaced = refill(args, tensors);
      // While tracing, state holds tracers; afterwards what it held before.
      const touched = [...new Set([...inputs, ...outputs])];
      const before = keep(statesOf(touched));
      try {
        setAll(
          inputs,
          statesOf(inputs).map((tree) => refill(tree, tensors)),
        );
        made.result = fn(...replaced);
        return handlesOf([...tensorsOf(made.result), ...tensorsOf(statesOf(outputs))]);
      } finally {
        setAll(touched, before);
        release(before);
      }
    };
    made.id = checked(native.mlxlm_compile(register(call), shapeless));
    return made;
  };

  const compiled = (...args: unknown[]): unknown => {
    if (!enabled()) return fn(...args);
    const structure = structureOf(args);
    let known = traces.get(structure);
    if (!known) {
      known = trace(args);
      traces.set(structure, known);
    }
    // Tensors in, one tensor out: the fused activations, once or more in every layer and step.
    if (structure === "tensors" && inputs.length === 0 && outputs.length === 0 && known.result instanceof Tensor) {
      beginMail();
      for (const arg of args) writeInt((arg as Tensor).handle);
      checked(native.mlxlm_call_compiled(known.id, args.length));
      return new Tensor(mail[0]!);
    }
    beginMail();
    const count = writeInts(handlesOf([...tensorsOf(args), ...tensorsOf(statesOf(inputs))]));
    const results = wrapAll(readHandles(native.mlxlm_call_compiled(known.id, count))).values();
    const result = refill(known.result, results);
    setAll(
      outputs,
      statesOf(outputs).map((tree) => refill(tree, results)),
    );
    return result;
  };
  const dispose = () => {
    for (const { id } of traces.values()) checked(native.mlxlm_free_compiled(id));
    traces.clear();
  };
  return Object.assign(compiled as F, { dispose });
}

/** Turns compiling on or off for the whole process, as MLX's own switch does. */
export function enableCompile(on: boolean): void {
  checked(native.mlxlm_enable_compile(on));
}

/** Writes `fn`, traced at the inputs, to a file that `importFunction` of any MLX reads. */
export function exportFunction(
  path: string,
  fn: (...inputs: Tensor[]) => Tensor | Tensor[],
  inputs: readonly Tensor[],
  { shapeless = false } = {},
): void {
  const id = register((handles) => {
    const result = fn(...wrapAll(handles!));
    return handlesOf(Array.isArray(result) ? result : [result]);
  });
  beginMail();
  const count = writeInts(handlesOf(inputs));
  checked(native.mlxlm_export_function(cString(path), id, count, shapeless));
}

/** A function from a file that `exportFunction` of any MLX wrote. `dispose` forgets it. */
export function importFunction(path: string): ((...inputs: Tensor[]) => Tensor[]) & { dispose(): void } {
  const id = checked(native.mlxlm_import_function(cString(path)));
  const call = (...inputs: Tensor[]): Tensor[] => {
    beginMail();
    const count = writeInts(handlesOf(inputs));
    return wrapAll(readHandles(native.mlxlm_call_imported(id, count)));
  };
  return Object.assign(call, { dispose: () => void checked(native.mlxlm_free_imported(id)) });
}
