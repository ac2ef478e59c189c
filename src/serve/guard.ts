/** Who may ask: keys, and what keeps other web pages and rebound names away. */
import { createHash, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { ApiError } from "./api-error";

export interface GuardOptions {
  /** Any of these is asked of every request but for the page and the health; none where empty. */
  apiKeys: readonly string[];
  /** Origins of web pages that may ask; "*": any. */
  allowedOrigins: readonly string[];
  /** Names by which the server may be called, beside addresses and this machine's own. */
  allowedHosts: readonly string[];
}

/** Whether an address is reached from this machine only. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, "").toLowerCase();
  return name === "localhost" || name === "::1" || (isIP(name) === 4 && name.startsWith("127."));
}

const digest = (text: string) => createHash("sha256").update(text).digest();

export class Guard {
  readonly #keys: readonly Buffer[];
  readonly #hosts: ReadonlySet<string>;
  readonly #origins: ReadonlySet<string>;

  constructor(options: GuardOptions) {
    this.#keys = options.apiKeys.map(digest);
    this.#hosts = new Set(
      ["localhost", hostname(), `${hostname()}.local`, ...options.allowedHosts].map((one) => one.toLowerCase()),
    );
    this.#origins = new Set(options.allowedOrigins.map((one) => one.toLowerCase().replace(/\/$/, "")));
  }

  /**
   * A name that an attacker's name server points to this machine is refused, whatever page it serves: addresses cannot
   * be rebound, and so go through.
   * @throws ApiError 403
   */
  checkHost(headers: Headers): void {
    const host = headers.get("host") ?? "";
    const name = hostnameOf(host);
    if (name !== null && (isIP(name) !== 0 || name.endsWith(".localhost") || this.#hosts.has(name))) return;
    throw new ApiError(403, `the server is not called ${JSON.stringify(host)}: --allowed-hosts names others`, {
      code: "host_not_allowed",
    });
  }

  /** @returns the origin that may read the answer, or null where no page asks or the page is the server's own @throws ApiError 403 */
  checkOrigin(headers: Headers): string | null {
    const origin = headers.get("origin");
    if (origin === null) return null;
    if (this.#origins.has("*") || this.#origins.has(origin.toLowerCase())) return origin;
    const own = URL.canParse(origin) ? new URL(origin).host : null;
    if (own !== null && own === headers.get("host")?.toLowerCase()) return null;
    throw new ApiError(403, `pages of ${JSON.stringify(origin)} may not ask: --allowed-origins names those that may`, {
      code: "origin_not_allowed",
    });
  }

  /** @throws ApiError 401 where a key is needed and none of them was given */
  checkKey(headers: Headers): void {
    if (this.#keys.length === 0) return;
    const given = headers.get("authorization")?.match(/^Bearer\s+(.*)$/i)?.[1] ?? headers.get("x-api-key") ?? "";
    // Digests are of one length, so that comparing takes one and the same time, whatever is given.
    const asked = digest(given);
    let isKnown = false;
    for (const key of this.#keys) isKnown = timingSafeEqual(key, asked) || isKnown;
    if (isKnown) return;
    const problem = given === "" ? "a key is needed: Authorization: Bearer KEY, or x-api-key: KEY" : "the key is wrong";
    throw new ApiError(401, problem, { code: "invalid_api_key" });
  }

  get needsKey(): boolean {
    return this.#keys.length > 0;
  }
}

/** The name in a Host header, without its port; null for what is none. */
function hostnameOf(host: string): string | null {
  const [, bracketed, plain] = /^(?:\[([0-9a-f:.%]+)\]|([^:[\]/@\s]+))(?::\d{1,5})?$/i.exec(host) ?? [];
  return (bracketed ?? plain)?.toLowerCase().replace(/\.$/, "") ?? null;
}
