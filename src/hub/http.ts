/** Requests to the hub: tried again where that helps, the token only to the hub itself, errors with a way out. */
import { HUB_URL, HubApiError } from "@huggingface/hub";
import { ExitCode, UserError } from "../errors";
import { accessToken, hubEndpoint } from "./environment";

const attempts = 4;

/** Milliseconds before the n-th new attempt, where the server names none. */
const pause = (attempt: number) => 250 * 2 ** attempt;

const retriable = (status: number) => status === 429 || status >= 500;

/** The hub's word for a repo whose terms have not been accepted. */
class GatedRepoError extends Error {}

/** `fetch` for @huggingface/hub. */
async function hubFetch(
  input: string | URL | Request,
  init: RequestInit = {},
  signal?: AbortSignal,
): Promise<Response> {
  const url = new URL(input instanceof Request ? input.url : input);
  const headers = new Headers(init.headers);
  // A file may lie on another host, whose address is signed: the token is not for it.
  if (url.origin !== new URL(hubEndpoint() ?? HUB_URL).origin) headers.delete("Authorization");
  for (let attempt = 0; ; attempt++) {
    const last = attempt === attempts - 1;
    try {
      const response = await fetch(url, { ...init, headers, signal });
      if (response.headers.get("X-Error-Code") === "GatedRepo") throw new GatedRepoError();
      if (!retriable(response.status) || last) return response;
      const after = Number(response.headers.get("Retry-After"));
      await response.body?.cancel();
      await Bun.sleep(after > 0 ? Math.min(after, 30) * 1000 : pause(attempt));
    } catch (error) {
      if (last || signal?.aborted || error instanceof GatedRepoError) throw error;
      await Bun.sleep(pause(attempt));
    }
  }
}

/** What goes with every call of @huggingface/hub. */
export function hubParameters(signal?: AbortSignal) {
  const bound = (input: string | URL | Request, init?: RequestInit) => hubFetch(input, init, signal);
  return { hubUrl: hubEndpoint(), accessToken: accessToken(), fetch: bound as typeof fetch };
}

/** An error of the network or the hub, as a user can act on it. */
export function hubError(error: unknown, repo: string): Error {
  if (error instanceof UserError) return error;
  const { code: system, path } = error as NodeJS.ErrnoException;
  if (system === "ENOSPC" || system === "EDQUOT") {
    return new UserError(`the disk is full while downloading ${repo}${path ? ` to ${path}` : ""}`, {
      code: ExitCode.resources,
      hint: "Make room, or name another cache: HF_HUB_CACHE=/path",
      cause: error,
    });
  }
  if (path && system && ["EACCES", "EPERM", "EROFS", "ENOTDIR", "EEXIST"].includes(system)) {
    return new UserError(`the cache cannot be written: ${path} (${system})`, {
      code: ExitCode.resources,
      hint: "Make it writable, or name another cache: HF_HUB_CACHE=/path",
      cause: error,
    });
  }
  if (error instanceof GatedRepoError) return gated(repo, error);
  if (error instanceof HubApiError) return apiError(error, repo);
  const reason = error instanceof Error ? error.message : String(error);
  return new UserError(`${repo} could not be downloaded: ${reason}`, {
    hint: "Check the network and try again. For a model that is on this machine, give its folder.",
    cause: error,
  });
}

function gated(repo: string, cause: Error): UserError {
  const token = accessToken() ? "Your token has not been let in" : "Then set HF_TOKEN to your token";
  return new UserError(`${repo} is gated: its owner asks for consent first`, {
    code: ExitCode.auth,
    hint: `Accept the terms on the repo's page. ${token}.`,
    cause,
  });
}

function apiError(error: HubApiError, repo: string): UserError {
  const { statusCode: status, message } = error;
  const token = accessToken() ? "Your token may not read it" : "Set HF_TOKEN to a token that may read it";
  // The hub answers 401, not 404, for what a stranger may not know to exist.
  if (status === 401) {
    return new UserError(`${repo} does not exist, or is private`, {
      code: ExitCode.auth,
      hint: `Check the name. ${token}.`,
      cause: error,
    });
  }
  if (status === 403) return gated(repo, error);
  if (status === 404) {
    return new UserError(`there is no repo ${repo}`, {
      code: ExitCode.notFound,
      hint: "Check the name, owner/name.",
      cause: error,
    });
  }
  const busy = status === 429 ? "the hub asks to wait" : "the hub has trouble";
  return new UserError(`${repo} could not be downloaded: ${busy} (${status}): ${message}`, {
    hint: "Try again later.",
    cause: error,
  });
}
