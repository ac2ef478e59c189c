/** What goes wrong between here and the hub, as a user can act on it. */
import { HubApiError } from "@huggingface/hub";
import { ExitCode, UserError } from "../errors";
import { LimitError } from "./answer-limits";
import { accessToken } from "./environment";
import { BusyError, RefusedError } from "./http";

export interface Transfer {
  /** The repo, in words. */
  name: string;
  /** Which way its files go: down, unless said. */
  way?: "up" | "down";
  /** The branch, tag or commit that was asked for. */
  revision?: string;
  /** Where a person reads about the repo. */
  page?: string;
  /** A user may have meant a path by the name: there was nothing at it. */
  mayBePath?: boolean;
  /** The user's wish to end it. */
  signal?: AbortSignal;
}

/** An error of the network, the hub or the disk, with the next step. */
export function hubError(error: unknown, transfer: Transfer): Error {
  const { name, way = "down", signal } = transfer;
  if (signal?.aborted) {
    return new UserError(`the ${way}load was interrupted`, {
      code: ExitCode.interrupted,
      hint:
        way === "down"
          ? "What has come is kept: the same command continues from there."
          : "The repo is unchanged. Large files that were stored are not sent again.",
      cause: error,
    });
  }
  if (error instanceof UserError) return error;
  const ofDisk = diskError(error, transfer);
  if (ofDisk) return ofDisk;
  if (error instanceof RefusedError)
    return error.reason === "GatedRepo" ? gated(transfer, error) : noRevision(transfer, error);
  if (error instanceof BusyError) {
    const isOverloaded = error.status !== 429;
    const cause = isOverloaded ? "is overloaded" : "has had too many requests from here";
    return new UserError(`the hub ${cause} and asks to wait ${error.seconds} s`, {
      hint:
        isOverloaded || accessToken()
          ? "Wait, then run the same command again."
          : "Wait, or set HF_TOKEN: with a token the limit is higher.",
      cause: error,
    });
  }
  if (error instanceof LimitError) {
    return new UserError(`the hub says too much about ${name}: ${error.message}`, {
      hint: "Check that HF_ENDPOINT names a hub, then try again later.",
      cause: error,
    });
  }
  if (error instanceof HubApiError) return way === "up" ? uploadRefused(error, transfer) : refused(error, transfer);
  const reason = error instanceof Error ? error.message : String(error);
  const nothingHere = transfer.mayBePath ? "There is no folder or file of that name here either. " : "";
  return new UserError(`${name} could not be ${way}loaded: ${reason}`, {
    hint:
      way === "down"
        ? `${nothingHere}Check the network and try again. What is on this machine can be named by its path.`
        : "Check the network and try again: large files that were stored are not sent again.",
    cause: error,
  });
}

function diskError(error: unknown, { name }: Transfer): UserError | null {
  const { code, path, syscall } = error as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new UserError(`the disk is full while downloading ${name}${path ? ` to ${path}` : ""}`, {
      code: ExitCode.resources,
      hint: "Make room and run the same command again, or name another cache: HF_HUB_CACHE=/path",
      cause: error,
    });
  }
  if (syscall && path && code && ["EACCES", "EPERM", "EROFS", "ENOTDIR", "EEXIST"].includes(code)) {
    return new UserError(`the cache cannot be written: ${path} (${code})`, {
      code: ExitCode.resources,
      hint: "Make it writable, or name another cache: HF_HUB_CACHE=/path",
      cause: error,
    });
  }
  return null;
}

function gated({ name, page }: Transfer, cause: Error): UserError {
  const token = accessToken() ? "Your token has not been let in yet" : "Then set HF_TOKEN to your token";
  return new UserError(`${name} is gated: its owner asks for consent first`, {
    code: ExitCode.auth,
    hint: `Accept the terms on the repo's page${page ? `, ${page}` : ""}. ${token}.`,
    cause,
  });
}

function noRevision({ name, revision, page }: Transfer, cause: Error): UserError {
  return new UserError(`${name} has no revision ${revision ?? "of that name"}`, {
    code: ExitCode.notFound,
    hint: `Check the branch, tag or commit${page ? ` at ${page}` : ""}.`,
    cause,
  });
}

function refused(error: HubApiError, transfer: Transfer): UserError {
  const { name } = transfer;
  const { statusCode: status, message } = error;
  const token = accessToken() ? "Your token may not read it" : "Set HF_TOKEN to a token that may read it";
  // The hub answers 401, not 404, for what a stranger may not know to exist.
  if (status === 401) {
    return new UserError(`${name} does not exist, or is private`, {
      code: ExitCode.auth,
      hint: `Check the name. ${token}.`,
      cause: error,
    });
  }
  if (status === 403) return gated(transfer, error);
  if (status === 404) {
    return new UserError(`there is no repo ${name}`, {
      code: ExitCode.notFound,
      hint: "Check the name, owner/name.",
      cause: error,
    });
  }
  return inTrouble(`${name} could not be downloaded`, status, message, error);
}

function uploadRefused(error: HubApiError, { name }: Transfer): UserError {
  const { statusCode: status, message } = error;
  if (status === 401) {
    return new UserError("the hub does not accept the token", {
      code: ExitCode.auth,
      hint: "Make a new one on the hub, with the right to write, and set HF_TOKEN to it.",
      cause: error,
    });
  }
  if (status === 403) {
    return new UserError(`the hub refuses to write to ${name}: ${message}`, {
      code: ExitCode.auth,
      hint: "Set HF_TOKEN to a token with the right to write there, or name a repo of your own.",
      cause: error,
    });
  }
  if (status === 404) {
    return new UserError(`there is no place for ${name} on the hub: ${message}`, {
      code: ExitCode.notFound,
      hint: "Check its owner: a user, or an organization that you belong to.",
      cause: error,
    });
  }
  return inTrouble(`${name} could not be uploaded`, status, message, error);
}

function inTrouble(what: string, status: number, message: string, cause: Error): UserError {
  const reason = status === 429 ? "the hub asks to wait" : status >= 500 ? "the hub has trouble" : "the hub refuses";
  const mayPass = status === 429 || status >= 500;
  return new UserError(`${what}: ${reason} (${status}): ${message}`, {
    hint: mayPass ? "Try again later." : "Change what it objects to, and try again.",
    cause,
  });
}
