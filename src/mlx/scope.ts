/**
 * Lifetimes. MLX's memory is invisible to JavaScript's garbage collector, so tensors are freed by scope: leaving one
 * frees all that was made inside, in one native call. Long-lived holders take tensors out with `keep`.
 */
import { MlxError } from "./error";
import { native } from "./library";
import { beginMail, writeInts } from "./mailbox";
import { checked } from "./native";
import { inNativeScope } from "./open-scopes";
import type { Tensor } from "./tensor";
import { tensorsOf } from "./tree";

function send(tensors: readonly Tensor[]): number {
  beginMail();
  return writeInts(tensors.map((tensor) => tensor.handle));
}

/**
 * Runs `fn` and frees every tensor made inside but those that it returns (arrays, plain objects and maps are walked);
 * they pass to the enclosing scope. Build a graph in a scope, leave it, then evaluate: MLX can then reuse buffers.
 * Synchronous only. @throws MlxError where `fn` returns a promise
 */
export function scope<T>(fn: () => T): T {
  checked(native.mlxlm_scope_begin());
  let result: T;
  try {
    result = inNativeScope(fn);
  } catch (error) {
    native.mlxlm_scope_end(0);
    throw error;
  }
  if (result instanceof Promise) {
    native.mlxlm_scope_end(0);
    throw new MlxError("scope() needs a synchronous function: what an async one makes later would not be freed");
  }
  checked(native.mlxlm_scope_end(send(tensorsOf(result))));
  return result;
}

/** Takes the tensors of a tree out of all scopes, until as many `release`s. Returns the tree. */
export function keep<T>(tree: T): T {
  checked(native.mlxlm_keep(send(tensorsOf(tree))));
  return tree;
}

/** Gives kept tensors back to the current scope; outside any scope frees them at once. */
export function release(tree: unknown): void {
  checked(native.mlxlm_release(send(tensorsOf(tree))));
}

/** How many tensors are alive: a number that must not grow with work done. */
export function liveHandles(): number {
  return native.mlxlm_live_arrays();
}
