/** Ranks that are no longer at the same step: a failure of one that the others know nothing of. */
import { UserError } from "../../errors";

const { promise, reject } = Promise.withResolvers<never>();
promise.catch(() => {});

/** Fails where the ranks part ways. Whoever runs the first one must end then: the others would wait for ever. */
export const ranksLost: Promise<never> = promise;

export function partWays(cause: unknown): void {
  const { message } = cause as Error;
  reject(
    new UserError(`the ranks are no longer at the same step: ${message}`, {
      hint: "Start the server again. The other ranks end with this one.",
      cause,
    }),
  );
}

/** What is wrong with what was asked for is so on all ranks, and they go on; any other failure is this rank's alone. */
export function partWaysUnlessShared(error: unknown): void {
  if (!(error instanceof UserError)) partWays(error);
}

/** Does what the other ranks do too. */
export function together<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    partWaysUnlessShared(error);
    throw error;
  }
}
