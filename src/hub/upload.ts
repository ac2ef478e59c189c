/** Uploads a model's folder to a repo of the hub. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type CommitOutput,
  type CommitProgressEvent,
  commitIter,
  createRepo,
  HUB_URL,
  HubApiError,
  whoAmI,
} from "@huggingface/hub";
import { replaceFile } from "../atomic-file";
import { ExitCode, UserError } from "../errors";
import { accessToken, isOffline, usesXet } from "./environment";
import { hubFetch, hubParameters, hubUrl, ownToken } from "./http";
import { hubError } from "./hub-error";
import { uploadedCard } from "./model-card";
import { checkRepoId } from "./repo-id";
import { type LocalFile, localFiles } from "./upload-files";

export interface UploadProgress {
  /** First all large files are hashed, so that what the hub has is not sent; then they are sent. */
  stage: "hashing" | "uploading";
  /** Bytes. */
  done: number;
  total: number;
}

export interface UploadOptions {
  onProgress?: (progress: UploadProgress) => void;
  /** Told where the hub asks to wait, and it takes a while. */
  onWait?: (line: string) => void;
  signal?: AbortSignal;
}

export interface Uploaded {
  /** Where a person finds it. */
  url: string;
  commit: string;
  files: number;
  /** Of all files. */
  bytes: number;
}

/**
 * The full name of a repo that may be written to, as far as can be known ahead of it: to be asked before long work.
 * A name without an owner is one of the user's own.
 * @throws UserError without a token, or with one that cannot write
 */
export async function uploadTarget(name: string, signal?: AbortSignal): Promise<string> {
  checkRepoId(name);
  if (isOffline()) {
    throw new UserError("uploading needs the network, which is not to be used", {
      code: ExitCode.usage,
      hint: "Unset HF_HUB_OFFLINE.",
    });
  }
  if (!accessToken()) {
    throw new UserError(`uploading to ${name} needs a token of the hub`, {
      code: ExitCode.auth,
      hint: `Make one with the right to write, ${hubUrl()}/settings/tokens, and set HF_TOKEN to it.`,
    });
  }
  try {
    const user = await whoAmI(hubParameters({ signal }));
    if (user.auth.accessToken?.role === "read") {
      throw new UserError("the token may only read", {
        code: ExitCode.auth,
        hint: `Make one with the right to write, ${hubUrl()}/settings/tokens, and set HF_TOKEN to it.`,
      });
    }
    return name.includes("/") ? name : `${user.name}/${name}`;
  } catch (error) {
    throw hubError(error, { name, way: "up", signal });
  }
}

/**
 * Makes the repo where there is none, writes the folder's card anew and sends all files, as one commit: the repo has all
 * of them or is unchanged. Large files that the hub has already, from an upload that was interrupted too, are not sent.
 * @param repo full name, of `uploadTarget`
 * @throws UserError for a folder that is no model's, what the hub refuses, and a network that fails
 */
export async function uploadModel(folder: string, repo: string, options: UploadOptions = {}): Promise<Uploaded> {
  const { signal } = options;
  // Before it, what is no model's folder is left as it is.
  await localFiles(folder);
  await writeCard(folder, repo);
  const files = await localFiles(folder);
  try {
    await makeRepo(repo, signal);
    const commit = await send(files, repo, options);
    const bytes = files.reduce((sum, { size }) => sum + size, 0);
    return { url: `${hubUrl()}/${repo}`, commit, files: files.length, bytes };
  } catch (error) {
    throw hubError(error, { name: repo, way: "up", signal });
  }
}

async function writeCard(folder: string, repo: string): Promise<void> {
  const path = join(folder, "README.md");
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw new UserError(`${path} cannot be read: ${error.message}`, { hint: "Make it readable.", cause: error });
  });
  const card = uploadedCard(text, { folder, repo, hub: HUB_URL });
  // A link into the cache is replaced: what it leads to stays.
  if (card !== text) await replaceFile(path, (temporary) => writeFile(temporary, card));
}

async function makeRepo(repo: string, signal?: AbortSignal): Promise<void> {
  try {
    await createRepo({ ...hubParameters({ signal }), repo: { type: "model", name: repo } });
  } catch (error) {
    if (!(error instanceof HubApiError)) throw error;
    if (error.statusCode === 409) return;
    // Who may write to a repo of an organization may still not make one: what counts is what the upload is told.
    if (error.statusCode === 403 && (await exists(repo, signal))) return;
    throw error;
  }
}

async function exists(repo: string, signal?: AbortSignal): Promise<boolean> {
  const headers = { Authorization: `Bearer ${ownToken}` };
  const response = await hubFetch(`${hubUrl()}/api/models/${repo}/revision/main`, { headers }, { signal });
  await response.body?.cancel();
  return response.ok;
}

/** Sends the files and returns the commit. */
async function send(
  files: readonly LocalFile[],
  repo: string,
  { onProgress, onWait, signal }: UploadOptions,
): Promise<string> {
  const total = files.reduce((sum, { size }) => sum + size, 0);
  const sizes = new Map(files.map(({ path, size }) => [path, size]));
  const shares = { hashing: new Map<string, number>(), uploading: new Map<string, number>() };
  const parameters = hubParameters({ signal, onWait }, "pieces");
  const work = commitIter({
    ...parameters,
    fetch: countingParts(parameters.fetch),
    repo: { type: "model", name: repo },
    operations: files.map(({ path, source }) => ({ operation: "addOrUpdate", path, content: Bun.file(source) })),
    title: "Upload with mlxlm",
    useXet: usesXet(),
    abortSignal: signal,
  });
  for (;;) {
    const step: IteratorResult<CommitProgressEvent, CommitOutput | undefined> = await work.next();
    if (step.done) return step.value?.commit.oid ?? "";
    if (step.value.event !== "fileProgress") continue;
    const { path, progress, state } = step.value;
    if (state === "error") throw new Error(`${path} was not taken`);
    shares[state].set(path, progress);
    const done = shares[state].entries().reduce((sum, [name, share]) => sum + sizes.get(name)! * share, 0);
    onProgress?.({ stage: state, done, total });
  }
}

/** What @huggingface/hub says to `fetch` about a piece of a large file. */
interface PieceHint {
  numParts?: number;
  progressCallback: (share: number) => void;
}

/** `fetch` that tells of the pieces of a large file as they arrive. */
function countingParts(send: typeof fetch): typeof fetch {
  const arrived = new Map<PieceHint["progressCallback"], number>();
  const counting = async (input: string | URL | Request, init?: RequestInit) => {
    const response = await send(input, init);
    const { progressHint: hint } = (init ?? {}) as { progressHint?: PieceHint };
    if (response.ok && hint?.numParts) {
      const count = (arrived.get(hint.progressCallback) ?? 0) + 1;
      arrived.set(hint.progressCallback, count);
      hint.progressCallback(count / hint.numParts);
    }
    return response;
  };
  return counting as typeof fetch;
}
