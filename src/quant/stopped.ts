/** Work that a signal ends between two steps. */
import { ExitCode, UserError } from "../errors";

/** Of work that is saved as it comes. */
export const resumeHint = "What was done by then is saved: go on with --resume.";

/** @throws UserError where the signal is given */
export function checkStopped(signal: AbortSignal | undefined, hint?: string): void {
  if (signal?.aborted) throw new UserError("stopped", { code: ExitCode.interrupted, hint });
}
