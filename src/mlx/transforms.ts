/** Function transforms: gradients, Jacobian products, vectorization, checkpointing, custom rules. */
import { type HandleFunction, register } from "./closures";
import { MlxError } from "./error";
import { native } from "./library";
import { beginMail, writeInts } from "./mailbox";
import { type Handle, readHandles } from "./native";
import { handlesOf, wrap, wrapAll } from "./operand";
import type { Tensor } from "./tensor";
import { refill, tensorsOf } from "./tree";

/** A function of trees: tensors in its arguments at any depth. */
// biome-ignore lint/suspicious/noExplicitAny: arguments are whatever the wrapped function takes
type TreeFunction<R> = (...args: any[]) => R;

/** Refills `tree` with tensors made from the handles, which it consumes from the front of the list. */
function rebuild<T>(tree: T, handles: Iterator<Handle>): T {
  const tensors = { next: () => ({ done: false as const, value: wrap(handles.next().value as Handle) }) };
  return refill(tree, tensors as Iterator<Tensor>);
}

/**
 * A function of handle lists from one of trees: arguments get their tensors from the list, and the tree of the latest
 * result is kept for rebuilding.
 */
class Traced<R> {
  result: R | undefined;

  constructor(
    private readonly fn: TreeFunction<R>,
    private readonly args: readonly unknown[],
  ) {}

  readonly call: HandleFunction = (handles) => {
    const result = this.fn(...rebuild(this.args, handles!.values()));
    if (result instanceof Promise) throw new MlxError("a transformed function must be synchronous");
    this.result = result;
    return handlesOf(tensorsOf(result));
  };
}

/** A tensor, or a list whose first item is the value that is differentiated. */
export type LossResult = Tensor | [Tensor, ...unknown[]];

/**
 * The value of `fn` and its gradient by the arguments `argnums`. The value must be a scalar tensor, or a list that
 * begins with one; gradients have the shape of the arguments' trees.
 */
export function valueAndGrad<R extends LossResult>(
  fn: TreeFunction<R>,
  argnums: number | readonly number[] = 0,
  // biome-ignore lint/suspicious/noExplicitAny: gradients mirror arguments of any type
): TreeFunction<[value: R, grads: any]> {
  return (...args) => {
    const indices = typeof argnums === "number" ? [argnums] : argnums;
    const chosen = indices.map((index) => args[index]);
    const inputs = tensorsOf(chosen);
    if (inputs.length === 0) throw new MlxError(`valueAndGrad: argument ${indices.join(", ")} holds no tensor`);
    const traced = new Traced((...replaced) => {
      const all = [...args];
      indices.forEach((index, i) => {
        all[index] = replaced[i];
      });
      return fn(...all);
    }, chosen);

    const id = register(traced.call);
    beginMail();
    const count = writeInts(handlesOf(inputs));
    const which = writeInts(inputs.map((_, i) => i));
    const handles = readHandles(native.mlxlm_value_and_grad(id, count, which)).values();
    const value = rebuild(traced.result as R, handles);
    const grads = rebuild(chosen, handles);
    return [value, typeof argnums === "number" ? grads[0] : grads];
  };
}

/** The gradient of `fn` by the arguments `argnums`. */
export function grad(
  fn: TreeFunction<LossResult>,
  argnums: number | readonly number[] = 0,
  // biome-ignore lint/suspicious/noExplicitAny: gradients mirror arguments of any type
): TreeFunction<any> {
  const both = valueAndGrad(fn, argnums);
  return (...args) => both(...args)[1];
}

type ListFunction = (...inputs: Tensor[]) => Tensor | Tensor[];

function listed(fn: ListFunction): HandleFunction {
  return (handles) => {
    const result = fn(...wrapAll(handles!));
    return handlesOf(Array.isArray(result) ? result : [result]);
  };
}

function product(
  call: typeof native.mlxlm_vjp,
  fn: ListFunction,
  primals: readonly Tensor[],
  weights: readonly Tensor[],
  resultsAfter: (total: number) => number,
): [outputs: Tensor[], products: Tensor[]] {
  const id = register(listed(fn));
  beginMail();
  const at = writeInts(handlesOf(primals));
  const along = writeInts(handlesOf(weights));
  const tensors = wrapAll(readHandles(call(id, at, along)));
  const outputs = resultsAfter(tensors.length);
  return [tensors.slice(0, outputs), tensors.slice(outputs)];
}

/** Outputs and vector-Jacobian products: one product per primal. */
export function vjp(fn: ListFunction, primals: readonly Tensor[], cotangents: readonly Tensor[]): [Tensor[], Tensor[]] {
  return product(native.mlxlm_vjp, fn, primals, cotangents, (total) => total - primals.length);
}

/** Outputs and Jacobian-vector products: one product per output. */
export function jvp(fn: ListFunction, primals: readonly Tensor[], tangents: readonly Tensor[]): [Tensor[], Tensor[]] {
  return product(native.mlxlm_jvp, fn, primals, tangents, (total) => total / 2);
}

/** `fn` over a batch axis of each input (null: the input is shared), the batch at `outAxes` of each output. */
export function vmap(
  fn: ListFunction,
  { inAxes, outAxes = [0] }: { inAxes?: readonly (number | null)[]; outAxes?: readonly number[] } = {},
): (...inputs: Tensor[]) => Tensor[] {
  return (...inputs) => {
    const id = register(listed(fn));
    beginMail();
    const count = writeInts(handlesOf(inputs));
    const mapped = writeInts(inputs.map((_, i) => (inAxes ? (inAxes[i] ?? -1) : 0)));
    const placed = writeInts(outAxes);
    return wrapAll(readHandles(native.mlxlm_vmap(id, count, mapped, placed)));
  };
}

/** `fn`, whose gradient computes the forward pass again instead of keeping what lies between. Chen et al. 2016. */
export function checkpoint<R>(fn: TreeFunction<R>): TreeFunction<R> {
  return (...args) => {
    const traced = new Traced(fn, args);
    const id = register(traced.call);
    beginMail();
    const count = writeInts(handlesOf(tensorsOf(args)));
    const handles = readHandles(native.mlxlm_checkpoint(id, count)).values();
    return rebuild(traced.result as R, handles);
  };
}

export interface CustomRules {
  /** Gradients of the primals from the outputs' cotangents. */
  vjp?: (primals: Tensor[], cotangents: Tensor[], outputs: Tensor[]) => Tensor[];
  /** Tangents of the outputs from tangents of the primals whose indices are `argnums`. */
  jvp?: (primals: Tensor[], tangents: Tensor[], argnums: Tensor[]) => Tensor[];
}

/** `fn` with gradient rules of its own in place of those of the ops inside. */
export function customFunction(fn: ListFunction, rules: CustomRules): (...inputs: Tensor[]) => Tensor[] {
  const rule = (apply: ((...lists: Tensor[][]) => Tensor[]) | undefined) =>
    apply ? register((...lists) => handlesOf(apply(...lists.map(wrapAll)))) : -1;
  return (...inputs) => {
    const ids = [register(listed(fn)), rule(rules.vjp as never), rule(rules.jvp as never)] as const;
    beginMail();
    const count = writeInts(handlesOf(inputs));
    return wrapAll(readHandles(native.mlxlm_custom_function(...ids, count)));
  };
}
