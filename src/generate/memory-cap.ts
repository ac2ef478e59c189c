/** A limit on the memory that a generation may use: better an error in words than a machine that swaps. */
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";

/** @throws UserError (exit code 5) where more bytes than `limit` are in use, weights and caches together */
export function checkMemory(limit: number | undefined): void {
  if (limit === undefined) return;
  const used = mx.activeMemory();
  if (used <= limit) return;
  const inGb = (bytes: number) => (bytes / 1e9).toFixed(3);
  throw new UserError(`${inGb(used)} GB of memory are in use, more than the ${inGb(limit)} GB that are allowed`, {
    code: ExitCode.resources,
    hint: "Shorten the prompt, keep fewer tokens (--max-kv-size), pack them (--kv-bits), or raise --max-memory.",
  });
}
