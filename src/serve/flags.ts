/** What the command's flags say, in the server's terms, checked before anything is loaded. */
import { ExitCode, UserError } from "../errors";
import { byteSize, duration } from "./durations";
import { isLoopback } from "./guard";
import type { ModelSource } from "./models/models";

export interface ServerFlags {
  host: string;
  apiKey?: string;
  unprotected: boolean;
  allowedHosts?: string;
  allowedOrigins?: string;
  allowedModels?: string;
  adapters?: string;
  keepAlive: string;
  promptCacheBytes?: string;
  maxBody: string;
}

export interface ReadServerFlags {
  apiKeys: string[];
  allowedHosts: string[];
  allowedOrigins: string[];
  allowed: ModelSource[];
  adapters: Map<string, string>;
  /** Seconds. */
  keepAlive: number;
  promptCacheBytes?: number;
  maxBody: number;
}

/** @throws UserError (usage) for what is malformed, and for an address that others reach where nothing protects it */
export function readServerFlags(flags: ServerFlags, keyFromEnvironment?: string): ReadServerFlags {
  const { host, unprotected } = flags;
  const apiKeys = words(flags.apiKey ?? keyFromEnvironment);
  if (!isLoopback(host) && apiKeys.length === 0 && !unprotected) {
    throw usage(
      `on ${host} others than this machine reach the server, and nothing protects it`,
      "Give a key: --api-key KEY, or MLXLM_API_KEY. Or say that it is open to everybody: --unprotected",
    );
  }
  const keepAlive = duration(flags.keepAlive);
  if (keepAlive === null)
    throw usage(`--keep-alive must be a time, not "${flags.keepAlive}"`, "For example 5m, 1h, or -1");
  return {
    apiKeys,
    allowedHosts: words(flags.allowedHosts),
    allowedOrigins: words(flags.allowedOrigins),
    allowed: words(flags.allowedModels).map((name) => ({ name, open: name })),
    adapters: new Map(words(flags.adapters).map(adapterOf)),
    keepAlive,
    promptCacheBytes:
      flags.promptCacheBytes === undefined ? undefined : size("prompt-cache-bytes", flags.promptCacheBytes),
    maxBody: size("max-body", flags.maxBody),
  };
}

const usage = (message: string, hint: string) => new UserError(message, { code: ExitCode.usage, hint });

const words = (list = "") => list.split(",").flatMap((word) => word.trim() || []);

function adapterOf(text: string): [name: string, path: string] {
  const at = text.indexOf("=");
  if (at > 0 && at < text.length - 1) return [text.slice(0, at), text.slice(at + 1)];
  throw usage(`--adapters has "${text}", which is not NAME=PATH`, "For example --adapters pirate=./adapters/pirate");
}

function size(flag: string, text: string): number {
  const bytes = byteSize(text);
  if (bytes !== null && bytes > 0) return bytes;
  throw usage(`--${flag} must be a size, not "${text}"`, "For example 512MB or 2GiB");
}
