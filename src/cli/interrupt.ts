/**
 * Ctrl-C: the first asks long work to end between two steps, the second ends the program at once, inside of a step too.
 * What is saved by then is whole: files are put in place by renaming.
 */
import { ExitCode } from "../errors";
import { announceInterrupt, endOnSecond } from "../mlx/system";

let taker: (() => void) | null = null;

const notice = "\nmlxlm: ending after this step; Ctrl-C again ends at once\n";

/** A signal that the first SIGINT or SIGTERM aborts. @param isAnnounced say at once that the first was heard */
export function interruptible({ isAnnounced = false } = {}): AbortSignal {
  const controller = new AbortController();
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(ExitCode.interrupted);
    controller.abort();
  };
  process.on("SIGINT", () => {
    if (!taker) return interrupt();
    taker();
    endOnSecond("SIGINT");
  });
  process.on("SIGTERM", interrupt);
  if (isAnnounced) announceInterrupt(notice);
  else endOnSecond("SIGINT");
  return controller.signal;
}

/** Hands every Ctrl-C to `take`, until the returned function is called: for commands that live on after one. */
export function takeInterrupts(take: () => void): () => void {
  taker = take;
  return () => {
    taker = null;
  };
}
