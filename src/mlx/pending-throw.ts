/** What JavaScript threw inside a native call, on its way around MLX to whoever made the call. */

let thrown: { error: unknown } | null = null;

/** Keeps the error until the native call has failed. The first one is the cause; MLX may unwind through further calls. */
export function storeThrow(error: unknown): void {
  thrown ??= { error };
}

/** What a function threw inside the native call that just failed, once. */
export function takeThrow(): { error: unknown } | null {
  const found = thrown;
  thrown = null;
  return found;
}
