/**
 * The mailbox: one Int32Array that both languages read and write. List arguments go out through it, handles and
 * shapes come back. Its storage is an ArrayBuffer of its own, whose address never moves (a small typed array made with
 * `new Int32Array(n)` may be moved by the JIT).
 */
import { MlxError } from "./error";

/** How absent optional int and dtype arguments are spelled on the C side. */
export const absentInt = -0x80000000;

const capacity = 1 << 18;

export const mail = new Int32Array(new ArrayBuffer(capacity * 4));

/** Results that are not int32 come back here. */
export const numberMail = new Float64Array(new ArrayBuffer(8));

let cursor = 0;

/** Starts a new letter: what is written from here on is read by the next native call. */
export function beginMail(): void {
  cursor = 0;
}

/** Appends one number of a list whose length the caller knows. */
export function writeInt(value: number): void {
  mail[cursor++] = value;
}

/** Appends a list and returns its length, the form in which the ABI takes lists. */
export function writeInts(values: readonly number[]): number {
  const count = values.length;
  if (cursor + count > capacity)
    throw new MlxError(`a list of ${count} numbers is longer than the mailbox (${capacity})`);
  for (let i = 0; i < count; i++) mail[cursor++] = values[i]!;
  return count;
}

/** As `writeInts`, with -1 for an absent list. */
export function writeMaybeInts(values: readonly number[] | null): number {
  return values === null ? -1 : writeInts(values);
}

/** The first `count` numbers of the reply. */
export function readInts(count: number): number[] {
  const values = new Array<number>(count);
  for (let i = 0; i < count; i++) values[i] = mail[i]!;
  return values;
}

const encoder = new TextEncoder();
const knownStrings = new Map<string, Uint8Array>();

/** UTF-8 with a closing NUL. The few words that ops take ("affine", "causal") are encoded once. */
export function cString(text: string): Uint8Array {
  const known = knownStrings.get(text);
  if (known) return known;
  if (text.includes("\0")) throw new MlxError(`text for MLX must not hold a NUL character: ${JSON.stringify(text)}`);
  const bytes = encoder.encode(`${text}\0`);
  if (text.length <= 32 && knownStrings.size < 256) knownStrings.set(text, bytes);
  return bytes;
}

/** NUL-closed fields, the form in which the ABI takes lists of names. Never empty, so that it has an address. */
export function cFields(words: readonly string[]): { bytes: Uint8Array; length: number } {
  for (const word of words) {
    if (word.includes("\0"))
      throw new MlxError(`a name for MLX must not hold a NUL character: ${JSON.stringify(word)}`);
  }
  const bytes = encoder.encode(words.map((word) => `${word}\0`).join("") || "\0");
  return { bytes, length: words.length === 0 ? 0 : bytes.length };
}
