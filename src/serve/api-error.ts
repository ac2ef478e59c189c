/** Errors as HTTP sees them. Each API writes them in its own shape. */
import { ExitCode, isLackOfMemory, UserError } from "../errors";

export type ErrorStatus = 400 | 401 | 403 | 404 | 405 | 408 | 413 | 415 | 429 | 500 | 503;

export interface ErrorFacts {
  /** The request's field that is wrong, as a path. */
  param?: string;
  /** A word that programs can test. */
  code?: string;
  /** Seconds after which it is worth trying again. */
  retryAfter?: number;
  cause?: unknown;
}

export class ApiError extends Error {
  override name = "ApiError";

  constructor(
    readonly status: ErrorStatus,
    message: string,
    readonly facts: ErrorFacts = {},
  ) {
    super(message, { cause: facts.cause });
  }
}

/** A request that says something wrong. */
export const invalid = (message: string, param?: string, code?: string) => new ApiError(400, message, { param, code });

/** A field whose meaning is known, and which this server does not have. */
export const unsupported = (param: string, why = "is not supported by this server") =>
  new ApiError(400, `"${param}" ${why}`, { param, code: "unsupported_parameter" });

const statuses: Partial<Record<ExitCode, ErrorStatus>> = {
  [ExitCode.usage]: 400,
  [ExitCode.notFound]: 404,
  [ExitCode.resources]: 503,
};

/** What a client is told of any error. What happened inside is no client's business: it goes to the log. */
export function apiErrorOf(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (isLackOfMemory(error)) {
    return new ApiError(503, "out of memory", { code: "out_of_memory", cause: error });
  }
  if (error instanceof UserError) return new ApiError(statuses[error.code] ?? 500, error.message, { cause: error });
  return new ApiError(500, "internal error", { code: "internal_error", cause: error });
}
