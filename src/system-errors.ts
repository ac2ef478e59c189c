/** What the operating system says when it refuses, in words, with the next step. */
import { ExitCode, UserError } from "./errors";

interface Sentence {
  reason: string;
  hint: string;
  /** A failure, where not given. */
  code?: ExitCode;
}

const { usage, notFound, resources } = ExitCode;

const permission = { reason: "permission denied", hint: "Check who may read and write it, or take another place." };
const full = { reason: "the disk is full", hint: "Make room there, or take another place.", code: resources };
const taken = { reason: "it exists already", hint: "Delete it, or take another name.", code: usage };
const manyFiles = {
  reason: "too many files are open",
  hint: "Raise the limit, for example: ulimit -n 4096",
  code: resources,
};

const sentences: Readonly<Record<string, Sentence>> = {
  EACCES: permission,
  EPERM: permission,
  EROFS: { reason: "the file system is read-only", hint: "Take another place." },
  ENOENT: { reason: "there is no such file or folder", hint: "Check the path.", code: notFound },
  ENOTDIR: { reason: "a part of the path is a file, not a folder", hint: "Check the path.", code: usage },
  EISDIR: { reason: "it is a folder, not a file", hint: "Name a file.", code: usage },
  ELOOP: { reason: "its links lead round in a circle", hint: "Repair the link, or name the file itself.", code: usage },
  ENAMETOOLONG: { reason: "the name is too long", hint: "Take a shorter name.", code: usage },
  EEXIST: taken,
  ENOTEMPTY: { ...taken, reason: "the folder exists already, and is not empty" },
  EBUSY: { reason: "it is in use", hint: "End what uses it, then try again." },
  EXDEV: { reason: "it lies on another disk", hint: "Take a place on the same disk." },
  EIO: { reason: "the disk reports an error", hint: "Check the disk, or take another place." },
  ESTALE: { reason: "the network file system has lost it", hint: "Try again." },
  ENOSPC: full,
  EDQUOT: { ...full, reason: "your share of the disk is full" },
  EFBIG: {
    reason: "files may not become so large here",
    hint: "Raise the limit (ulimit -f), or take another disk.",
    code: resources,
  },
  EMFILE: manyFiles,
  ENFILE: manyFiles,
  ENOMEM: { reason: "out of memory", hint: "Close other programs, and try again.", code: resources },
};

/** What is there as folders are made with those above them. */
const inTheWay = { ...taken, reason: "a file is where a folder is to be" };

/** MLX's words have no code. A file that could be opened and not be written to has no room. */
const fullInWords = /no space left|unable to write \d+ bytes/i;

/** What dlopen says of a file on a disk that is mounted so. */
const noExecution = /failed to map segment from shared object|cannot enable executable/i;

const noexec: Sentence = {
  reason: "programs may not run from that disk (noexec)",
  hint: "Name another place for mlxlm's own files: XDG_CACHE_HOME=/path mlxlm …",
};

/**
 * An error of the operating system as a user can act on it; null for one of another kind.
 * @param what could not be done: "./model cannot be written". Where not given, the path that the error names
 */
export function systemError(error: unknown, what?: string): UserError | null {
  if (!(error instanceof Error) || error instanceof UserError) return null;
  const { code = "", path, syscall, dest } = error as NodeJS.ErrnoException & { dest?: string };
  const known = syscall === "mkdir" && code === "EEXIST" ? inTheWay : Object.hasOwn(sentences, code) && sentences[code];
  const sentence = known || inWords(error.message);
  if (!sentence) return null;
  const { reason, hint, code: exit } = sentence;
  const place = what ?? dest ?? path ?? /['"](\/[^'"]+)['"]/.exec(error.message)?.[1] ?? syscall;
  return new UserError(`${place ? `${shortened(place)}: ` : ""}${reason}${known ? ` (${code})` : ""}`, {
    code: exit,
    hint,
    cause: error,
  });
}

function inWords(message: string): Sentence | undefined {
  if (fullInWords.test(message)) return full;
  return noExecution.test(message) ? noexec : undefined;
}

const longest = 300;

/** A name that is too long would fill the screen. */
const shortened = (text: string) =>
  text.length <= longest ? text : `${text.slice(0, longest / 2)}…${text.slice(-longest / 2)}`;
