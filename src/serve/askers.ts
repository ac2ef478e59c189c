/** Who asks and what for, where a request says so: a line of the log. */
import type { ServeContext } from "./context";

/** Characters of it, at most. */
const longest = 2000;

/** @param said the request's fields for that */
export function logAsker({ log }: ServeContext, request: Request, said: Record<string, unknown>): void {
  const given = Object.entries(said).filter(([, value]) => value !== undefined);
  if (given.length === 0) return;
  const text = JSON.stringify(Object.fromEntries(given)).slice(0, longest);
  log("INFO", `${request.method} ${new URL(request.url).pathname} by ${text}`);
}
