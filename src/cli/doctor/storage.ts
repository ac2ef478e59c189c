/** Folders and disks, the hub's token, the network. */
import { cacheFolder } from "../../embedded";
import { environment } from "../../environment";
import { hubCache, hubEndpoint, isOffline, tokenFile } from "../../hub/environment";
import { type Found, fail, gb, ok, warn } from "./finding";
import type { Probes } from "./probes";

/** Less is no room for a model. */
const littleRoom = 5e9;

export interface StorageFacts {
  model_cache: string;
  library_cache: string;
}

export const storageFacts = ({ env }: Probes): StorageFacts => ({
  model_cache: hubCache(env),
  library_cache: cacheFolder(),
});

export function storageFindings(
  probes: Probes,
  { model_cache: models, library_cache: libraries }: StorageFacts,
): Found[] {
  return [folderFinding(probes, "model cache", models, "HF_HUB_CACHE"), libraryFinding(probes, libraries)];
}

function folderFinding(probes: Probes, name: string, path: string, variable: string): Found {
  const { exists, writable, free } = probes.folder(path);
  const where = `${path}${exists ? "" : " (not there yet)"}`;
  if (!writable) {
    const hint = `Name another: ${variable}=/path`;
    return warn(name, exists ? `${where} cannot be written` : `${path} cannot be made`, hint);
  }
  if (free !== null && free < littleRoom) {
    const hint = `Make room (mlxlm models rm NAME), or name a folder on another disk: ${variable}=/path`;
    return warn(name, `${where}, ${gb(free)} free on its disk`, hint);
  }
  return ok(name, free === null ? where : `${where}, ${gb(free)} free on its disk`);
}

/** Where the executable unpacks its libraries; a checkout has its own. */
function libraryFinding(probes: Probes, path: string): Found {
  const name = "library cache";
  if (probes.build === null) return ok(name, "not used: the libraries of the checkout are");
  const options = mountOptions(probes, path);
  if (options?.includes("noexec")) {
    // The temp folder may do in its place: whether the library loads is said above.
    const text = `${path}: no program may run from that disk (noexec)`;
    return warn(name, text, "Name another folder: XDG_CACHE_HOME=/path");
  }
  return folderFinding(probes, name, path, "XDG_CACHE_HOME");
}

/** The options of the mount that a path is on; null where the system has no such list. */
function mountOptions({ read }: Probes, path: string): string[] | null {
  const mounts = (read("/proc/self/mounts") ?? "").split("\n").flatMap((line) => {
    const [, point, , options] = line.split(" ");
    return point !== undefined && options !== undefined ? [{ point, options: options.split(",") }] : [];
  });
  const within = mounts.filter(({ point }) => point === "/" || path === point || path.startsWith(`${point}/`));
  return within.sort((a, b) => b.point.length - a.point.length)[0]?.options ?? null;
}

export interface TokenFacts {
  /** A variable's name, or the path of the file that it is in. */
  from: string;
  token: string;
  /** Others can read the file. */
  open: boolean;
}

export function tokenFacts({ env, read, folder }: Probes): TokenFacts | null {
  for (const from of ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] as const) {
    const token = environment(from, env)?.trim();
    if (token) return { from, token, open: false };
  }
  const path = tokenFile(env);
  const token = read(path)?.trim();
  return token ? { from: path, token, open: ((folder(path).mode ?? 0) & 0o077) !== 0 } : null;
}

/** What asking the hub came to; null where it was not asked. */
export interface HubAnswer {
  endpoint: string;
  milliseconds?: number;
  /** It knows the token; undefined where there is none. */
  accepts?: boolean;
  /** Why there was no answer. */
  error?: string;
}

const publicHub = "https://huggingface.co";

/** Asks the hub once, for whom the token is, or whether it is there. No longer than three seconds. */
export async function askHub(probes: Probes, token: TokenFacts | null): Promise<HubAnswer | null> {
  if (isOffline(probes.env)) return null;
  const endpoint = hubEndpoint(probes.env) ?? publicHub;
  try {
    const path = token ? "/api/whoami-v2" : "/";
    const headers = token ? { Authorization: `Bearer ${token.token}` } : undefined;
    const { status, milliseconds } = await probes.ask(`${endpoint}${path}`, headers);
    if (status >= 500) return { endpoint, error: `it answers ${status}` };
    return { endpoint, milliseconds, ...(token ? { accepts: status !== 401 && status !== 403 } : {}) };
  } catch (error) {
    const { name, message } = error as Error;
    return {
      endpoint,
      error:
        name === "TimeoutError" ? "it does not answer within 3 s" : message.replace(/\.? *(Is the computer.*)?$/, ""),
    };
  }
}

export function hubFindings(token: TokenFacts | null, answer: HubAnswer | null): Found[] {
  return [tokenFinding(token, answer), networkFinding(answer)];
}

function tokenFinding(token: TokenFacts | null, answer: HubAnswer | null): Found {
  if (!token) return ok("token", "none: gated and private repos need one (HF_TOKEN)");
  if (answer?.accepts === false) {
    return fail(
      "token",
      `the hub does not know that of ${token.from}`,
      "Make a new one: https://huggingface.co/settings/tokens",
    );
  }
  if (token.open) return warn("token", `others can read ${token.from}`, `chmod 600 ${token.from}`);
  return ok("token", `from ${token.from}${answer?.accepts ? ", known to the hub" : ", not checked"}`);
}

function networkFinding(answer: HubAnswer | null): Found {
  if (!answer) return ok("network", "not asked: HF_HUB_OFFLINE is set");
  const { endpoint, error, milliseconds } = answer;
  if (error === undefined) return ok("network", `${endpoint} answers in ${Math.round(milliseconds ?? 0)} ms`);
  const hint = "Models of the cache run without it. Behind a proxy: HTTPS_PROXY. A mirror: HF_ENDPOINT";
  return warn("network", `${endpoint}: ${error}`, hint);
}
