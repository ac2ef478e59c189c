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
