/** Ctrl-C: the first asks long work to end between two steps, the second ends the program. */
import { ExitCode } from "../errors";

/** A signal that the first SIGINT or SIGTERM aborts. */
export function interruptible(): AbortSignal {
  const controller = new AbortController();
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(ExitCode.interrupted);
    controller.abort();
  };
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  return controller.signal;
}
