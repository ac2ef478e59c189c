/** Standing between a module and those who call it. */
import type { Module } from "../nn";

interface Callable extends Module {
  forward(...args: unknown[]): unknown;
}

/** Puts `forward` in the place of the module's own, until the returned function is called. */
export function intercept(
  module: Module,
  forward: (original: (...args: unknown[]) => unknown, args: unknown[]) => unknown,
): () => void {
  const callable = module as Callable;
  const original = callable.forward.bind(callable);
  callable.forward = (...args) => forward(original, args);
  return () => void Reflect.deleteProperty(callable, "forward");
}
