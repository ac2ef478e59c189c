/** One request and the model that it holds, from its lease to the end of the last answer. */
import type { ServeContext } from "./context";
import { type End, type GenerateOptions, type Generation, generate, type Part } from "./generation";
import type { Lease } from "./models/models";
import type { ServedModel } from "./models/served-model";

export interface SessionOptions {
  adapter?: string;
  /** Seconds that the model stays loaded behind this request. */
  keepAlive?: number;
}

export class Session {
  readonly #controller = new AbortController();
  readonly #abort = () => this.#controller.abort();
  readonly #began = performance.now();
  /** How much of the prompt has been read. */
  progress = { done: 0, total: 0 };

  private constructor(
    private readonly context: ServeContext,
    private readonly request: Request,
    private readonly lease: Lease,
  ) {
    if (request.signal.aborted) this.#abort();
    request.signal.addEventListener("abort", this.#abort);
  }

  /** @throws ApiError where there is no such model, or it cannot be loaded */
  static async open(
    context: ServeContext,
    request: Request,
    name?: string,
    options?: SessionOptions,
  ): Promise<Session> {
    return new Session(context, request, await context.models.lease(name, options));
  }

  get served(): ServedModel {
    return this.lease.served;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Seconds since the request. */
  get seconds(): number {
    return (performance.now() - this.#began) / 1000;
  }

  /** Ends the answers by the next step. */
  readonly abort = this.#abort;

  /** Answers, and counts. */
  async *generate(
    generation: Generation,
    options: Partial<GenerateOptions> = {},
  ): AsyncGenerator<Part | End, void, void> {
    const { metrics } = this.context;
    const { served, adapter } = this.lease;
    const onPrefill = (done: number, total: number) => {
      this.progress = { done, total };
    };
    let isFirst = true;
    for await (const part of generate(served, generation, { signal: this.signal, adapter, onPrefill, ...options })) {
      if (isFirst) metrics.firstToken(this.seconds);
      isFirst = false;
      if (part.type === "end") metrics.answered(part);
      yield part;
    }
  }

  readonly end = (): void => {
    this.request.signal.removeEventListener("abort", this.#abort);
    this.lease.release();
  };
}

/** Several answers side by side: what each says, as it comes. Where one fails, all end. */
export async function* sideBySide<T>(
  answers: readonly AsyncGenerator<T, void, void>[],
): AsyncGenerator<[index: number, part: T], void, void> {
  const next = (index: number) => answers[index]!.next().then((result) => ({ index, result }));
  const pending = new Map(answers.map((_, index) => [index, next(index)]));
  try {
    while (pending.size > 0) {
      const { index, result } = await Promise.race(pending.values());
      if (result.done) pending.delete(index);
      else {
        pending.set(index, next(index));
        yield [index, result.value];
      }
    }
  } finally {
    // Those that are waited for end too, and nobody hears of it.
    for (const one of pending.values()) one.catch(() => {});
    await Promise.all(answers.map((one) => one.return().catch(() => {})));
  }
}
