/** Ctrl-C on several processes: all must leave an answer after the same step, or they would wait for each other. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { isLaunched } from "../mlx/group-environment";

/** A question to all processes is put at every so many steps. Its answer is read at the next, so that no step waits for it. */
const stepsPerQuestion = 8;

/** What `signal` says on any of the processes; each must read it as often as the others. */
class AgreedSignal {
  #reads = 0;
  #aborted = false;
  #asked: Tensor | null = null;

  constructor(
    private readonly signal: AbortSignal | undefined,
    private readonly group: mx.distributed.Group,
  ) {}

  get aborted(): boolean {
    if (!this.#aborted && this.#reads++ % stepsPerQuestion === 0) {
      this.#aborted = this.#asked?.item() === 1;
      this.end();
      const own = this.signal?.aborted ? 1 : 0;
      this.#asked = mx.keep(mx.scope(() => mx.distributed.allMax(mx.array([own], "int32"), { group: this.group })));
      mx.asyncEval(this.#asked);
    }
    return this.#aborted;
  }

  end(): void {
    if (this.#asked) mx.release(this.#asked);
    this.#asked = null;
  }
}

/** Whether `signal` is aborted on any of the processes, all of which must ask; `signal` itself where there is one process. */
export function isAbortedAnywhere(signal: AbortSignal): boolean {
  if (!isLaunched()) return signal.aborted;
  const group = mx.distributed.init({ strict: true });
  return mx.scope(() => mx.distributed.allMax(mx.array([signal.aborted ? 1 : 0], "int32"), { group }).item()) === 1;
}

/** Steps that end together on all processes; those of `signal` itself where there is one process. */
export function endingTogether<T>(
  signal: AbortSignal | undefined,
  steps: (signal: AbortSignal | undefined) => AsyncGenerator<T, void, void>,
): AsyncGenerator<T, void, void> {
  return isLaunched() ? agreeing(signal, steps) : steps(signal);
}

async function* agreeing<T>(
  signal: AbortSignal | undefined,
  steps: (signal: AbortSignal) => AsyncGenerator<T, void, void>,
): AsyncGenerator<T, void, void> {
  const agreed = new AgreedSignal(signal, mx.distributed.init({ strict: true }));
  try {
    // Steps read no more of it than whether it is aborted.
    yield* steps(agreed as unknown as AbortSignal);
  } finally {
    agreed.end();
  }
}
