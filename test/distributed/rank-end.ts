/** How a rank's script ends: it prints what the test reads that started it, and leaves whatever is still connected. */

/** What `measure` finds for each name. @throws Error that begins with the name at which it failed */
export async function resultsOf<T>(
  names: readonly string[],
  measure: (name: string) => Promise<T>,
): Promise<Record<string, T>> {
  const results: Record<string, T> = {};
  for (const name of names) {
    try {
      results[name] = await measure(name);
    } catch (error) {
      throw new Error(`${name}: ${(error as Error).message}`, { cause: error });
    }
  }
  return results;
}

/** Prints the results as JSON, infinite numbers as text, and ends the process. */
export function report(results: unknown): never {
  console.log(JSON.stringify(results, (_, value) => (value === Number.POSITIVE_INFINITY ? "infinite" : value)));
  process.exit();
}

/** Prints the message of the error that the work ends with, behind some words. */
export function sayFailure(work: () => void, words = ""): void {
  try {
    work();
  } catch (error) {
    console.log(words + (error as Error).message);
  }
}
