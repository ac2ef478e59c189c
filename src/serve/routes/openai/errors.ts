/** OpenAI's shape of an error. */
import { type ApiError, apiErrorOf } from "../../api-error";

const types: Partial<Record<ApiError["status"], string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  429: "rate_limit_error",
  500: "server_error",
  503: "server_error",
};

export function openAiError(error: unknown): object {
  const { status, message, facts } = apiErrorOf(error);
  const type = types[status] ?? "invalid_request_error";
  return { error: { message, type, param: facts.param ?? null, code: facts.code ?? null } };
}
