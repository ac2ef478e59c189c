/** How much memory a generation may use: better an error in words than a machine that swaps. */
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

/** Bytes that a GPU's work may be ahead of it. */
const ahead = 2e9;

/**
 * Evaluates what a chunk of a prompt gives. MLX puts work before a GPU far ahead of it, and what an operation gives takes memory until it
 * has been used: weights that were unpacked for a product above all, half a layer of an 8B model at a time.
 */
export function evalSparingly(values: unknown): void {
  if (!mx.isAvailable("cuda")) {
    mx.eval(values);
    return;
  }
  const limit = mx.memoryLimit();
  // Beyond its limit MLX waits for what it has put before the GPU.
  mx.setMemoryLimit(Math.min(limit, mx.activeMemory() + ahead));
  try {
    mx.eval(values);
  } finally {
    mx.setMemoryLimit(limit);
  }
}
