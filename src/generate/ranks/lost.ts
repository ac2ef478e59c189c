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

/** Does what the other ranks do too. A failure that is not the request's is this rank's alone: then they part ways. */
export function together<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof UserError)) partWays(error);
    throw error;
  }
}
