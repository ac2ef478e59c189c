/**
 * Reads the code signature of a Mach-O file and checks it, on any machine: an executable or library for Apple silicon
 * whose pages do not fit their hashes is killed when it starts.
 *
 * The format is that of xnu's `cs_blobs.h`: LC_CODE_SIGNATURE points to a superblob (big endian) with a code directory
 * in it, which has a hash of every page of the file before the signature.
 */
import { createHash } from "node:crypto";

const machO64 = 0xfeedfacf;
const loadCommands = { segment64: 0x19, codeSignature: 0x1d };
const magics = { superBlob: 0xfade0cc0, codeDirectory: 0xfade0c02 };
const slots = { codeDirectory: 0, alternateCodeDirectories: 0x1000 };
const hashNames: Record<number, string> = { 1: "sha1", 2: "sha256", 3: "sha256", 4: "sha384" };
/** First version of a code directory that can say a limit above 4 GiB. */
const versionWithLimit64 = 0x20300;
const adHoc = 0x2;

export interface Signature {
  identifier: string;
  /** Signed by nobody: the hashes alone count. */
  adHoc: boolean;
  pages: number;
}

/**
 * The signature of a Mach-O file, all hashes of which fit.
 * @throws Error that says what is wrong with it
 */
export function checkedSignature(file: Uint8Array): Signature {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (view.byteLength < 32 || view.getUint32(0, true) !== machO64) throw new Error("it is no 64-bit Mach-O file");
  const offset = signaturePlace(view);
  if (view.getUint32(offset) !== magics.superBlob) throw new Error("its signature is no superblob");

  const directories: number[] = [];
  for (let i = 0; i < view.getUint32(offset + 8); i++) {
    const type = view.getUint32(offset + 12 + i * 8);
    const isDirectory = type === slots.codeDirectory || (type & ~0xf) === slots.alternateCodeDirectories;
    if (isDirectory) directories.push(offset + view.getUint32(offset + 16 + i * 8));
  }
  const signatures = directories.map((at) => checkedDirectory(file, view, at, offset));
  const [first] = signatures;
  if (first === undefined) throw new Error("its signature has no code directory");
  return first;
}

/** Where the signature begins; it must end with the file. */
function signaturePlace(view: DataView): number {
  let at = 32;
  let place: { offset: number; size: number } | undefined;
  let linkEditEnd = 0;
  for (let i = 0; i < view.getUint32(16, true); i++) {
    const [command, length] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
    if (command === loadCommands.codeSignature) {
      place = { offset: view.getUint32(at + 8, true), size: view.getUint32(at + 12, true) };
    }
    if (command === loadCommands.segment64 && text(view, at + 8, 16) === "__LINKEDIT") {
      linkEditEnd = Number(view.getBigUint64(at + 40, true) + view.getBigUint64(at + 48, true));
    }
    at += length;
  }
  if (!place) throw new Error("it is not signed");
  if (place.offset + place.size !== linkEditEnd) throw new Error("its signature does not end with __LINKEDIT");
  if (linkEditEnd > view.byteLength) throw new Error("the end of it is missing");
  if (linkEditEnd < view.byteLength) throw new Error("there are bytes after its signature");
  return place.offset;
}

function checkedDirectory(file: Uint8Array, view: DataView, at: number, signatureAt: number): Signature {
  if (view.getUint32(at) !== magics.codeDirectory) throw new Error("its code directory has a wrong magic number");
  const [version, flags, hashesAt, identifierAt] = [8, 12, 16, 20].map((field) => view.getUint32(at + field));
  const pages = view.getUint32(at + 28);
  const limit64 = version! >= versionWithLimit64 ? Number(view.getBigUint64(at + 56)) : 0;
  const limit = limit64 || view.getUint32(at + 32);
  const [hashSize, hashType, , pageShift] = [36, 37, 38, 39].map((field) => view.getUint8(at + field));
  const hashName = hashNames[hashType!];
  if (hashName === undefined) throw new Error(`its code directory has hashes of an unknown type (${hashType})`);
  if (limit !== signatureAt)
    throw new Error(`its hashes cover ${limit} bytes, not the ${signatureAt} before the signature`);

  const pageSize = 2 ** pageShift!;
  if (pages !== Math.ceil(limit / pageSize))
    throw new Error(`it has hashes of ${pages} pages, not of ${Math.ceil(limit / pageSize)}`);
  for (let page = 0; page < pages; page++) {
    const bytes = file.subarray(page * pageSize, Math.min((page + 1) * pageSize, limit));
    const expected = file.subarray(at + hashesAt! + page * hashSize!, at + hashesAt! + (page + 1) * hashSize!);
    const actual = createHash(hashName).update(bytes).digest().subarray(0, hashSize);
    if (!actual.equals(expected)) throw new Error(`the hash of page ${page} of ${pages} does not fit`);
  }
  return { identifier: text(view, at + identifierAt!, 256), adHoc: (flags! & adHoc) !== 0, pages };
}

/** Text that ends with a NUL. */
function text(view: DataView, at: number, longest: number): string {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at, Math.min(longest, view.byteLength - at));
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}
