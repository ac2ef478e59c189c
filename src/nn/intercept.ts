/** Standing between a module and those who call it. */
import type { Module } from "./module";
import { isJoined } from "./projection";

interface Callable extends Module {
  forward(...args: unknown[]): unknown;
}

/**
 * Puts `forward` in the place of the module's own, until the returned function is called.
 * @throws Error for a layer that runs as one with its neighbours: nobody would call it
 */
export function intercept(
  module: Module,
  forward: (original: (...args: unknown[]) => unknown, args: unknown[]) => unknown,
): () => void {
  if (isJoined(module)) throw new Error(`this ${module.constructor.name} is fused with its neighbours`);
  const callable = module as Callable;
  const original = callable.forward.bind(callable);
  callable.forward = (...args) => forward(original, args);
  return () => void Reflect.deleteProperty(callable, "forward");
}
