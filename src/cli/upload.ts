/** Uploading, as commands do it: asked for ahead of long work, with bars, and a line that says where the model is. */
import { UserError } from "../errors";
import type { Uploaded } from "../hub/upload";
import type { Output } from "./output";

/** Of an upload, as JSON. */
type Report = { repo: string } & Uploaded;

/**
 * Asks the hub whether it can be, and returns the function that does it for a folder.
 * @throws UserError without a token that may write; the function for what it cannot send
 */
export async function uploadTo(
  name: string,
  out: Output,
  signal: AbortSignal,
): Promise<(folder: string) => Promise<Report>> {
  // The hub's client is loaded by those only who upload.
  const { uploadModel, uploadTarget } = await import("../hub/upload");
  const repo = await uploadTarget(name, signal);
  return async (folder) => {
    const bars = out.bars({
      hashing: [`Hashing ${folder}`, "bytes"],
      uploading: [`Uploading to ${repo}`, "bytes"],
    });
    try {
      const uploaded = await uploadModel(folder, repo, {
        signal,
        onProgress: ({ stage, done, total }) => bars.at(stage, done, total),
      });
      bars.end();
      out.text(`Upload successful, go to ${uploaded.url} for details.\n`);
      return { repo, ...uploaded };
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      const again = `To upload it later: mlxlm upload --path ${folder} --upload-repo ${repo}`;
      throw new UserError(error.message, { ...error.options, hint: `${error.hint ?? ""} ${again}`.trim() });
    } finally {
      bars.end();
    }
  };
}
