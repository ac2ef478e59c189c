/** Ctrl-C on several processes: all must leave an answer after the same step, or they would wait for each other. */
import * as mx from "../mlx";
import { isLaunched } from "../mlx/group-environment";

/** A question to all processes waits for the step under way: it is put at every so many steps. */
const stepsPerQuestion = 8;

/** What `signal` says on any of the processes; each must read it as often as the others. */
class AgreedSignal {
  #reads = 0;
  #aborted = false;

  constructor(
    private readonly signal: AbortSignal | undefined,
    private readonly group: mx.distributed.Group,
  ) {}

  get aborted(): boolean {
    if (!this.#aborted && this.#reads++ % stepsPerQuestion === 0) {
      const own = this.signal?.aborted ? 1 : 0;
      this.#aborted = mx.scope(() => {
        return mx.distributed.allMax(mx.array([own], "int32"), { group: this.group }).item() === 1;
      });
    }
    return this.#aborted;
  }
}

/** The signal itself where there is one process. */
export function agreedSignal(signal: AbortSignal | undefined): AbortSignal | undefined {
  if (!isLaunched()) return signal;
  // Steps read no more of it than whether it is aborted.
  return new AgreedSignal(signal, mx.distributed.init({ strict: true })) as unknown as AbortSignal;
}
