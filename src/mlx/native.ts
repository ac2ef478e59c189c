/** Results of native calls: a negative number is an error whose text the library holds. */
import { toArrayBuffer } from "bun:ffi";
import { UserError } from "../errors";
import { MlxError } from "./error";
import { native } from "./library";
import { readInts } from "./mailbox";
import { takeThrow } from "./pending-throw";

/** A slot of the native table: index and generation in one positive int32. */
export type Handle = number;

/** Position of a dtype in MLX's enumeration. */
export type DtypeCode = number;

function fail(): never {
  const thrown = takeThrow();
  if (thrown) throw thrown.error;
  const text = String(native.mlxlm_last_error());
  if (!lostFile.test(text)) throw new MlxError(text);
  throw new UserError(text, { hint: "Start again when nothing writes to the file." });
}

/** What mapped_files.cpp says of a file that changed under a mapping. */
const lostFile = / (became shorter while it was in use|can no longer be read)$/;

/**
 * Passes a native result on.
 * @throws MlxError with MLX's own text; UserError for a mapped file that was cut; or whatever a JavaScript function threw inside the call, unchanged.
 */
export function checked(result: number): number {
  if (result < 0) fail();
  return result;
}

/** The handles of a call that posts a list of them. */
export function readHandles(count: number): Handle[] {
  return readInts(checked(count));
}

const decoder = new TextDecoder();

/** The text that the last call posted, `length` bytes, as its NUL-closed fields. */
export function readFields(length: number): string[] {
  if (checked(length) === 0) return [];
  const address = native.mlxlm_text();
  if (address === null) return [];
  const text = decoder.decode(new Uint8Array(toArrayBuffer(address, 0, length)));
  return text.split("\0").slice(0, -1);
}
