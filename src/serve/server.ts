/** The HTTP server: from an address to answers, and its end. */
import { serverApp } from "./app";
import type { ServeContext } from "./context";

export interface ServerOptions {
  host: string;
  /** 0: one that is free. */
  port: number;
  /** Seconds without a byte after which a connection that waits for a request is closed. */
  headerTimeout: number;
}

export interface RunningServer {
  url: string;
  port: number;
  /** Takes no more requests, waits for those that run, and ends. After so many seconds those that run end too. */
  drain(seconds: number): Promise<void>;
}

/** @throws the system's error where the address cannot be had */
export function startServer(context: ServeContext, { host, port, headerTimeout }: ServerOptions): RunningServer {
  const app = serverApp(context);
  let isDraining = false;
  const running = new Set<Promise<unknown>>();
  const server = Bun.serve({
    hostname: host.replace(/^\[|\]$/g, ""),
    port,
    idleTimeout: headerTimeout,
    // One more, so that a body beyond the limit is refused in the API's own words.
    maxRequestBodySize: context.limits.maxBody + 1,
    fetch(request, server) {
      if (isDraining) return new Response(null, { status: 503, headers: { "retry-after": "5", connection: "close" } });
      // From here on the answer takes its time; bodies have a timeout of their own.
      server.timeout(request, 0);
      const answered = Promise.resolve(app.fetch(request));
      running.add(answered);
      answered.finally(() => running.delete(answered)).catch(() => {});
      return answered;
    },
    error(error) {
      context.log("ERROR", error.message);
      return new Response("internal error", { status: 500 });
    },
  });
  return {
    url: server.url.href.replace(/\/$/, ""),
    port: server.port!,
    async drain(seconds) {
      isDraining = true;
      const late = new Promise<void>((resolve) => setTimeout(resolve, seconds * 1000).unref());
      await Promise.race([server.stop(false), late]);
      await server.stop(true);
      await context.models.dispose();
    },
  };
}
