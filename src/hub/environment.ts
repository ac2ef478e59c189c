/** The hub's settings, from the environment variables that Python's huggingface_hub knows. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** A path from the environment, with `~`, `$NAME` and `${NAME}` resolved: variables from a file have seen no shell. */
function expanded(path: string): string {
  const home = path.replace(/^~(?=$|[\\/])/, () => homedir());
  return home.replace(/\$(\w+|\{[^}]*\})/g, (all, name: string) => process.env[name.replace(/[{}]/g, "")] ?? all);
}

function hubHome(): string {
  if (process.env.HF_HOME) return expanded(process.env.HF_HOME);
  return join(expanded(process.env.XDG_CACHE_HOME || "~/.cache"), "huggingface");
}

/** The cache that is shared with Python. */
export function hubCache(): string {
  const named = process.env.HF_HUB_CACHE || process.env.HUGGINGFACE_HUB_CACHE;
  return named ? expanded(named) : join(hubHome(), "hub");
}

/** The hub's address; undefined: the public one. */
export function hubEndpoint(): string | undefined {
  return process.env.HF_ENDPOINT?.replace(/\/+$/, "") || undefined;
}

export function isOffline(): boolean {
  return ["1", "true", "yes", "on"].includes((process.env.HF_HUB_OFFLINE ?? "").toLowerCase());
}

/** HF_TOKEN, else the token that a login left in its file. */
export function accessToken(): string | undefined {
  const given = process.env.HF_TOKEN?.trim() || process.env.HUGGING_FACE_HUB_TOKEN?.trim();
  if (given) return given;
  try {
    return readFileSync(expanded(process.env.HF_TOKEN_PATH || join(hubHome(), "token")), "utf8").trim() || undefined;
  } catch {
    return undefined;
  }
}
