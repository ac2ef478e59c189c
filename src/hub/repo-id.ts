/** Names of repos, and of the files in them. */
import { ExitCode, UserError } from "../errors";

const part = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?$/;

/** @throws UserError for what cannot be a repo's name */
export function checkRepoId(name: string): void {
  const parts = name.split("/");
  const sound =
    parts.length <= 2 && parts.every((word) => part.test(word) && !word.includes("..") && !word.includes("--"));
  if (sound) return;
  const isPath = /^[./~\\]/.test(name) || parts.length > 2 || /^[A-Za-z]:/.test(name);
  throw new UserError(isPath ? `there is no folder ${name}` : `"${name}" is neither a folder nor the name of a repo`, {
    code: ExitCode.notFound,
    hint: isPath ? "Check the path." : "A repo is named owner/name, for example mlx-community/Qwen3-4B-4bit.",
  });
}

/** @throws UserError for what cannot be a branch, tag or commit: its name becomes a path in the cache */
export function checkRevision(revision: string): void {
  const sound = revision.split("/").every((part) => /^[\w.+@-]+$/.test(part) && !/^\.|\.\.|\.lock$/.test(part));
  if (sound) return;
  throw new UserError(`${JSON.stringify(revision)} is not the name of a branch, tag or commit`, {
    code: ExitCode.usage,
    hint: "Check the revision.",
  });
}

/** What a model needs of its repo: the allow-list of mlx-lm and draft layers in a file of their own, top folder only. */
const wanted = [
  /\.json$/,
  /^model.*\.safetensors$/,
  /^mtp\.safetensors$/,
  /\.py$/,
  /^(tokenizer|tiktoken)\.model$/,
  /\.tiktoken$/,
  /\.txt$/,
  /\.jsonl$/,
  /\.jinja$/,
];

/** Whether a file holds weights of a model in this form. */
export const isWeights = (file: string) => /^model.*\.safetensors$/.test(file);

export function isWanted(file: string): boolean {
  return !file.includes("/") && wanted.some((pattern) => pattern.test(file));
}

/** @throws UserError for a name that would lead out of the snapshot's folder, on any system */
export function checkFileName(file: string, repo: string): void {
  const segments = file.split(/[\\/]/);
  const bad =
    file === "" ||
    file.includes("\0") ||
    file.includes("\\") ||
    segments.some((s) => s === "" || s === "." || s === "..") ||
    /^[A-Za-z]:/.test(file);
  if (bad) {
    throw new UserError(`${repo} has a file with the name ${JSON.stringify(file)}, which could leave the cache`, {
      hint: "Do not use this repo.",
    });
  }
}
