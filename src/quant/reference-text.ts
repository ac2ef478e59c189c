/** mlx-lm's calibration text: where it comes from, and getting it. */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { replaceFile } from "../atomic-file";
import { ExitCode, UserError } from "../errors";
import { unpacked } from "../hub/answer-limits";
import { patience } from "../hub/environment";

/** The address that mlx-lm has, of one revision. */
export const referenceTextUrl =
  "https://gist.githubusercontent.com/tristandruyen/9e207a95c7d75ddf37525d353e00659c/raw/571fda718462de863e5a0171078c175420c7649a/calibration_data_v5_rc.txt";

interface DownloadOptions {
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/**
 * Downloads a text to a file, whole or not at all.
 * @throws UserError where it cannot be had, or is no text
 */
export async function downloadText(
  url: string,
  path: string,
  { onProgress, signal }: DownloadOptions = {},
): Promise<void> {
  const bytes = await bytesFrom(url, { onProgress, signal }).catch((error: Error) => {
    if (signal?.aborted) throw new UserError("stopped", { code: ExitCode.interrupted });
    throw new UserError(`the calibration text cannot be downloaded: ${error.message}`, {
      hint: "Name other text: --data-path FILE, FOLDER or REPO",
      cause: error,
    });
  });
  await mkdir(dirname(path), { recursive: true });
  await replaceFile(path, async (temporary) => void (await Bun.write(temporary, bytes)));
}

/** Bytes. The text has a thirtieth of them. */
const largest = 64 * 2 ** 20;

async function bytesFrom(url: string, { onProgress, signal }: DownloadOptions): Promise<Uint8Array> {
  const limit = AbortSignal.timeout(10 * patience());
  const response = await fetch(url, {
    decompress: false,
    signal: signal ? AbortSignal.any([signal, limit]) : limit,
  });
  if (!response.ok || !response.body) throw new Error(`the server answers ${response.status}`);
  if (!/^text\/plain/.test(response.headers.get("content-type") ?? "")) throw new Error("the server sends no text");
  const total = Number(response.headers.get("content-length")) || 0;
  const parts: Uint8Array[] = [];
  let done = 0;
  for await (const part of unpacked(response.body, response.headers.get("content-encoding"))) {
    parts.push(part);
    done += part.length;
    if (done > largest) throw new Error(`the server sends more than ${largest / 2 ** 20} MB`);
    onProgress?.(done, total);
  }
  if (done === 0) throw new Error("the server sends nothing");
  return Buffer.concat(parts);
}
