/** Sizes that a user asks for, held against the memory that there is before any of it is touched. */
import { ExitCode, UserError } from "./errors";

const inGb = (bytes: number) =>
  bytes < 1e10 ? (bytes / 1e9).toFixed(1) : Math.round(bytes / 1e9).toLocaleString("en");

/**
 * @param what what takes the memory, with the number that was asked for
 * @throws UserError (exit code 5) where it needs more bytes than are available
 */
export function checkRoom(bytes: number, available: number, what: string, hint: string): void {
  if (bytes <= available) return;
  throw new UserError(`${what} would need ${inGb(bytes)} GB of memory, and ${inGb(available)} GB are free`, {
    code: ExitCode.resources,
    hint,
  });
}
