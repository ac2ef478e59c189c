/**
 * A bundle's files in a folder of the user's: written once, found whole at later starts, mended where they are not.
 *
 * Each file is replaced by a rename, never removed first, and a bundle's files are the same whoever writes them. So
 * processes that start at once can't take files from each other; the lock only saves them doing the same work.
 */
import {
  chmodSync,
  closeSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { EmbeddedBundle } from "./embedded-files";
import { UserError } from "./errors";
import { usersOf } from "./mapped-by";

const manifestName = "manifest.json";
const partialMark = ".partial-";

const day = 24 * 3600 * 1000;
/** How long a folder of another version stays after its last start. */
const unusedFor = 30 * day;
const longestWait = 60_000;

const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code;

const own = (uid: number) => process.getuid === undefined || uid === process.getuid();
/** Root could change everything anyway. */
const trusted = (uid: number) => own(uid) || uid === 0;

/**
 * Makes the folder that holds bundles, for its owner alone.
 * @throws Error where it is another user's: who owns a folder can exchange the libraries in it
 */
export function ownFolder(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const [link, folder] = [lstatSync(path), statSync(path)];
  if (!trusted(link.uid) || !trusted(folder.uid)) throw new Error("it belongs to another user");
  if ((folder.mode & 0o022) === 0) return;
  if (!own(folder.uid)) throw new Error("other users can write there");
  chmodSync(path, 0o700);
}

/**
 * What shows that nobody has written to a file since it was checked: a write sets both times, and no program can set
 * the second one at will.
 */
function stampOf(path: string): string {
  const { size, mtimeNs, ctimeNs } = lstatSync(path, { bigint: true });
  return `${size} ${mtimeNs} ${ctimeNs}`;
}

/** Whether it is a folder in which nobody else can exchange files. */
function isSafe(path: string): boolean {
  const there = lstatSync(path, { throwIfNoEntry: false });
  return there !== undefined && trusted(there.uid) && (there.mode & 0o170022) === 0o040000;
}

/** Whether the files are those that were checked by hash when they were unpacked. */
function isWhole(folder: string, bundle: EmbeddedBundle): boolean {
  try {
    if (!isSafe(folder)) return false;
    const manifest = join(folder, manifestName);
    // Opening a named pipe would wait for its writer.
    if (!lstatSync(manifest).isFile()) return false;
    const stamps: Record<string, string> = JSON.parse(readFileSync(manifest, "utf8"));
    return bundle.files.every(({ name }) => stamps[name] === stampOf(join(folder, name)));
  } catch {
    return false;
  }
}

const sha256 = (bytes: Uint8Array) => new Bun.CryptoHasher("sha256").update(bytes).digest("hex");

/**
 * From this size on a file is on the disk before it has its name. Smaller ones, of which CUDA's headers are two thousand,
 * need not be: file systems write a file's size after its bytes, so a crash of the machine leaves one that is too short,
 * which its stamp tells.
 */
const largeSize = 2 ** 20;

/** Puts a whole file in the place of whatever is there. */
function replaceFile(path: string, bytes: Uint8Array): void {
  const partial = `${path}${partialMark}${process.pid}`;
  try {
    const file = openSync(partial, "w", 0o700);
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
      if (bytes.length >= largeSize) fsyncSync(file);
    } finally {
      closeSync(file);
    }
    if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) rmSync(path, { recursive: true });
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
}

function holds(path: string, file: EmbeddedBundle["files"][number]): boolean {
  try {
    const { size, mode, uid } = lstatSync(path);
    const safe = trusted(uid) && (mode & 0o170022) === 0o100000;
    return safe && size === file.size && sha256(readFileSync(path)) === file.sha256;
  } catch {
    return false;
  }
}

/** A folder at or below `root`, in the place of any file, link, or folder that others can write. */
function makeFolder(root: string, path: string): void {
  if (path !== root) makeFolder(root, dirname(path));
  if (isSafe(path)) return;
  rmSync(path, { recursive: true, force: true });
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  }
}

function mend(folder: string, bundle: EmbeddedBundle): void {
  for (const file of bundle.files) {
    const path = join(folder, file.name);
    makeFolder(folder, dirname(path));
    if (holds(path, file)) continue;
    const bytes = Bun.zstdDecompressSync(readFileSync(file.path));
    if (sha256(bytes) !== file.sha256) {
      throw new UserError(`${file.name} inside the executable is damaged`, { hint: "Download mlxlm again." });
    }
    replaceFile(path, bytes);
  }
  const stamps = Object.fromEntries(bundle.files.map(({ name }) => [name, stampOf(join(folder, name))]));
  replaceFile(join(folder, manifestName), Buffer.from(JSON.stringify(stamps)));
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) !== "ESRCH";
  }
}

/** Waits while another process has the lock, runs on in any case after a minute, and returns what gives it back. */
function lock(path: string): () => void {
  const began = Date.now();
  while (Date.now() - began < longestWait) {
    try {
      writeFileSync(path, `${process.pid}`, { flag: "wx", mode: 0o600 });
      return () => rmSync(path, { force: true });
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
    }
    let holder = "";
    try {
      holder = readFileSync(path, "utf8");
    } catch (error) {
      if (codeOf(error) === "ENOENT") continue; // given back meanwhile
      throw error;
    }
    if (holder !== "" && !isRunning(Number(holder))) rmSync(path, { force: true });
    else Bun.sleepSync(20);
  }
  return () => {};
}

/** Moves what another user put in the folder's place out of the way: it may be unreadable, so not mendable. */
function setAside(folder: string): void {
  const there = lstatSync(folder, { throwIfNoEntry: false });
  if (!there || (there.isDirectory() && own(there.uid))) return;
  renameSync(folder, `${folder}.aside-${process.pid}-${Date.now()}`);
}

function partialsIn(folder: string): string[] {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return names.filter((name) => name.includes(partialMark)).map((name) => join(folder, name));
}

/** Removes what killed processes left in a bundle's folder. */
function removePartials(folder: string): void {
  for (const path of partialsIn(folder)) {
    if (!isRunning(Number(path.slice(path.lastIndexOf("-") + 1)))) rmSync(path, { force: true });
  }
}

function lastUse(path: string): number {
  const manifest = statSync(join(path, manifestName), { throwIfNoEntry: false });
  return (manifest ?? lstatSync(path)).mtimeMs;
}

/** Removes folders of versions that nobody starts any more, and old leftovers of unpacking. */
function removeUnused(parent: string, used: string): void {
  for (const name of readdirSync(parent)) {
    const [, , more] = /^([0-9a-f]{16})(\..+)?$/.exec(name) ?? [];
    const path = join(parent, name);
    try {
      const isFolder = /^[0-9a-f]{16}$/.test(name);
      if ((!isFolder && more === undefined) || path === used) continue;
      if (Date.now() - lastUse(path) <= (isFolder ? unusedFor : day)) continue;
      // A server may run for longer than a month.
      if (!isFolder || usersOf(path)?.length === 0) rmSync(path, { recursive: true, force: true });
    } catch {
      // Another process removes it too, or it is another user's.
    }
  }
}

/** Notes that the bundle is in use, once a day. */
function noteUse(parent: string, folder: string): void {
  const manifest = join(folder, manifestName);
  try {
    if (Date.now() - statSync(manifest).mtimeMs < day) return;
    utimesSync(manifest, new Date(), new Date());
    removeUnused(parent, folder);
  } catch {
    // A folder that can only be read is as good.
  }
}

/**
 * The bundle's folder in `parent`, its files whole.
 * @throws what the file system says where it can't be made so, Error where `parent` is another user's, and UserError
 * where the executable itself is damaged
 */
export function unpackedBundle(parent: string, bundle: EmbeddedBundle): string {
  ownFolder(parent);
  const folder = join(parent, bundle.id);
  if (isWhole(folder, bundle)) {
    noteUse(parent, folder);
    return folder;
  }
  try {
    unpack(parent, folder, bundle);
  } catch (error) {
    // Where nothing can be written, a copy of the files is as good; its times differ from the manifest's.
    if (error instanceof UserError || !isSafe(folder)) throw error;
    if (!bundle.files.every((file) => holds(join(folder, file.name), file))) throw error;
  }
  return folder;
}

function unpack(parent: string, folder: string, bundle: EmbeddedBundle): void {
  setAside(folder);
  const unlock = lock(`${folder}.lock`);
  try {
    if (isWhole(folder, bundle)) return;
    mend(folder, bundle);
    removePartials(folder);
    removeUnused(parent, folder);
  } finally {
    unlock();
  }
}
