/** Answers that come in pieces: server-sent events, or a line of JSON each, with bytes that keep the connection alive. */

export interface StreamOptions {
  contentType: string;
  /** What to send while nothing else comes. */
  keepAlive?: () => string;
  /** Seconds without a byte after which that is sent. */
  interval?: number;
  /** Called when the stream ends in whatever way. */
  onEnd?: () => void;
}

const usualInterval = 5;

/**
 * A response whose body are the source's texts. A reader that is slow slows the source; one that goes away ends it: then
 * `abort` is called.
 */
export function streamed(
  source: AsyncGenerator<string, void, void>,
  abort: () => void,
  options: StreamOptions,
): Response {
  const { contentType, keepAlive, interval = usualInterval, onEnd } = options;
  const encoder = new TextEncoder();
  let pending: Promise<IteratorResult<string, void>> | null = null;
  let isOver = false;
  const end = () => {
    if (isOver) return;
    isOver = true;
    onEnd?.();
  };
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        pending ??= source.next();
        try {
          const next = await (keepAlive ? sooner(pending, interval) : pending);
          if (isOver) return;
          if (next === null) {
            controller.enqueue(encoder.encode(keepAlive!()));
            return;
          }
          pending = null;
          if (next.done) {
            end();
            controller.close();
          } else controller.enqueue(encoder.encode(next.value));
        } catch (error) {
          end();
          controller.error(error);
        }
      },
      async cancel() {
        abort();
        // What was being waited for ends, and with it the source.
        await pending?.catch(() => {});
        await source.return().catch(() => {});
        end();
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, {
    headers: { "content-type": contentType, "cache-control": "no-cache", "x-accel-buffering": "no" },
  });
}

/** null where it takes longer than so many seconds. */
async function sooner<T>(promise: Promise<T>, seconds: number): Promise<T | null> {
  const { promise: late, resolve } = Promise.withResolvers<null>();
  const timer = setTimeout(() => resolve(null), seconds * 1000);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A server-sent event. */
export function event(data: unknown, name?: string): string {
  const text = typeof data === "string" ? data : JSON.stringify(data);
  return `${name === undefined ? "" : `event: ${name}\n`}data: ${text}\n\n`;
}

export const eventStream = "text/event-stream; charset=utf-8";
export const jsonLines = "application/x-ndjson";
