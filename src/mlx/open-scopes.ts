/** Which scopes are open. The native side frees; this side only numbers them. */

let scopeCount = 0;
const openScopes: number[] = [];

/** The innermost open scope's number, 0 outside of all: what is made now lives as long as it is open. */
export function currentScope(): number {
  return openScopes.at(-1) ?? 0;
}

/** Runs `fn` in what counts as a scope of its own, whose freeing the native side sees to. */
export function inNativeScope<T>(fn: () => T): T {
  openScopes.push(++scopeCount);
  try {
    return fn();
  } finally {
    openScopes.pop();
  }
}
