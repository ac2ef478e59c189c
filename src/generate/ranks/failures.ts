/** An error of one process, as the others of its group hear of it. */
import { ExitCode, isLackOfMemory, UserError } from "../../errors";

export interface Failure {
  message: string;
  hint?: string;
  code?: ExitCode;
}

export function failureOf(error: unknown): Failure {
  if (error instanceof UserError) return { message: error.message, hint: error.hint, code: error.code };
  const message = error instanceof Error ? error.message : String(error);
  if (!isLackOfMemory(error)) return { message };
  const hint = "Take a smaller or a quantized model, or more ranks.";
  return { message: `out of memory: ${message}`, hint, code: ExitCode.resources };
}

/** The error on a process that hears of it. */
export function errorOfRank(rank: number, { message, hint, code = ExitCode.failure }: Failure): UserError {
  return new UserError(`rank ${rank}: ${message}`, { code, hint });
}
