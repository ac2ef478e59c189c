/** The hub's settings, from the environment variables that Python's huggingface_hub knows. */
import { join } from "node:path";
import { environment, expandedPath } from "../environment";
import { ExitCode, UserError } from "../errors";
import { inputTextSync } from "../input-file";

const isTrue = (text = "") => ["1", "true", "yes", "on"].includes(text.toLowerCase());

type Environment = Readonly<Record<string, string | undefined>>;

function hubHome(env: Environment): string {
  const named = environment("HF_HOME", env);
  if (named) return expandedPath(named, env);
  return join(expandedPath(environment("XDG_CACHE_HOME", env) || "~/.cache", env), "huggingface");
}

/** The cache that is shared with Python. */
export function hubCache(env: Environment = process.env): string {
  const named = environment("HF_HUB_CACHE", env) || environment("HUGGINGFACE_HUB_CACHE", env);
  return named ? expandedPath(named, env) : join(hubHome(env), "hub");
}

/** The hub's address; undefined: the public one. @throws UserError for what is none */
export function hubEndpoint(env: Environment = process.env): string | undefined {
  const given = environment("HF_ENDPOINT", env)?.trim().replace(/\/+$/, "");
  if (!given) return undefined;
  if (/^https?:$/.test(URL.parse(given)?.protocol ?? "")) return given;
  throw new UserError(`HF_ENDPOINT is no address: ${given}`, {
    code: ExitCode.usage,
    hint: "For example HF_ENDPOINT=https://hub.example.com, or unset it.",
  });
}

export function isOffline(env: Environment = process.env): boolean {
  return isTrue(environment("HF_HUB_OFFLINE", env));
}

/** Whether mlx-lm would take models from ModelScope instead. */
export function wantsModelScope(): boolean {
  return environment("MLXLM_USE_MODELSCOPE")?.toLowerCase() === "true";
}

/** Milliseconds without a byte after which a connection is given up: HF_HUB_DOWNLOAD_TIMEOUT, in seconds. */
export function patience(): number {
  const seconds = Number(environment("HF_HUB_DOWNLOAD_TIMEOUT"));
  return seconds > 0 && Number.isFinite(seconds) ? seconds * 1000 : 30_000;
}

/** Whether the hub's Xet storage may be used for large files. */
export function usesXet(): boolean {
  return !isTrue(environment("HF_HUB_DISABLE_XET"));
}

/** The file that a login leaves its token in. */
export function tokenFile(env: Environment = process.env): string {
  return expandedPath(environment("HF_TOKEN_PATH", env) || join(hubHome(env), "token"), env);
}

/** HF_TOKEN, else the token that a login left in its file. @throws UserError where there is a pipe or a folder in its place */
export function accessToken(): string | undefined {
  const given = environment("HF_TOKEN")?.trim() || environment("HUGGING_FACE_HUB_TOKEN")?.trim();
  if (given) return given;
  try {
    return inputTextSync(tokenFile())?.trim() || undefined;
  } catch (error) {
    if (error instanceof UserError) throw error;
    return undefined;
  }
}
