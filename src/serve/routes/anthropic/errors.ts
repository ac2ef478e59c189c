/** Anthropic's shape of an error. */
import { type ApiError, apiErrorOf } from "../../api-error";

const types: Partial<Record<ApiError["status"], string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  408: "timeout_error",
  413: "request_too_large",
  429: "rate_limit_error",
  500: "api_error",
  503: "overloaded_error",
};

export function anthropicError(error: unknown): object {
  const { status, message } = apiErrorOf(error);
  return { type: "error", error: { type: types[status] ?? "invalid_request_error", message } };
}
