/**
 * Files that users and repos give, opened only where reading them ends: a named pipe waits for a writer for ever, and a
 * device may never end.
 */
import { readFileSync, type Stats, statSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { ExitCode, UserError } from "./errors";

/** What a shell puts in a file's place: a pipe that has a writer, `<(command)`, and standard input. */
const shellStream = /^\/dev\/(?:stdin|fd\/\d+)$|^\/proc\/(?:self|\d+)\/fd\/\d+$/;

function kindOf(facts: Stats): string | null {
  if (facts.isFile()) return null;
  if (facts.isDirectory()) return "a folder";
  if (facts.isFIFO()) return "a named pipe";
  return facts.isSocket() ? "a socket" : "a device";
}

function checked(path: string, facts: Stats | null | undefined): Stats | null {
  const kind = facts ? kindOf(facts) : null;
  if (kind === null) return facts ?? null;
  throw new UserError(`${path} is ${kind}, not a file`, {
    code: ExitCode.usage,
    hint: kind === "a folder" ? "Name a file." : "Write what comes from it into a file, and name that.",
  });
}

/** null where there is nothing. @throws UserError for anything but a file */
export async function inputFile(path: string): Promise<Stats | null> {
  return checked(path, await stat(path).catch(absent));
}

/** @see inputFile */
export function inputFileSync(path: string): Stats | null {
  try {
    return checked(path, statSync(path, { throwIfNoEntry: false }));
  } catch (error) {
    return absent(error as NodeJS.ErrnoException);
  }
}

/** The text of a small file; null where there is nothing. @throws UserError for anything but a file */
export function inputTextSync(path: string): string | null {
  return inputFileSync(path) === null ? null : readFileSync(path, "utf8");
}

function absent(error: NodeJS.ErrnoException): null {
  if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
  throw error;
}

/**
 * The text of a file, or of a stream that the shell names; null where there is nothing.
 * @throws UserError for anything else, and for bytes that are no UTF-8
 */
export async function inputText(path: string): Promise<string | null> {
  if (!shellStream.test(path) && (await inputFile(path)) === null) return null;
  return decodeText(await readFile(path), path);
}

/** UTF-8, without a mark at its beginning. @throws UserError that names the line with other bytes */
export function decodeText(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw notUtf8(bytes, path);
  }
}

function notUtf8(bytes: Uint8Array, path: string): UserError {
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) {
    return new UserError(`${path} is UTF-16, not UTF-8`, { hint: `Convert it: iconv -f UTF-16 -t UTF-8 ${path}` });
  }
  // No sequence of bytes goes on behind the end of a line.
  let line = 1;
  let start = 0;
  for (let end = bytes.indexOf(10); end >= 0 && isUtf8(bytes.subarray(start, end)); end = bytes.indexOf(10, start)) {
    start = end + 1;
    line++;
  }
  const end = bytes.indexOf(10, start);
  const byte = faultyByte(bytes.subarray(start, end < 0 ? bytes.length : end));
  return new UserError(`${path}, line ${line}: this is not UTF-8 (byte 0x${byte.toString(16).padStart(2, "0")})`, {
    hint: `Convert the file, for example from Latin-1: iconv -f LATIN1 -t UTF-8 ${path}`,
  });
}

/** @param stream the end may break a sequence off */
function isUtf8(bytes: Uint8Array, stream = false): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream });
    return true;
  } catch {
    return false;
  }
}

/** The first byte of the first sequence that UTF-8 has not. */
function faultyByte(bytes: Uint8Array): number {
  let [sound, faulty] = [0, bytes.length + 1];
  while (faulty - sound > 1) {
    const middle = (sound + faulty) >> 1;
    if (isUtf8(bytes.subarray(0, middle), true)) sound = middle;
    else faulty = middle;
  }
  // What does not fit is at `sound`; the sequence may have begun up to three bytes before.
  for (let back = 1; back < 4 && back <= sound; back++) {
    const byte = bytes[sound - back]!;
    if (byte < 0x80) break;
    if (byte < 0xc0) continue;
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
    if (back < length) return byte;
    break;
  }
  return bytes[sound]!;
}
