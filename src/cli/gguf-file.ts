/** `--gguf-file`: which of the GGUF files of a folder or repo is the model. */
import { ExitCode, UserError } from "../errors";
import { flag } from "./flags";

export const ggufFileFlags = {
  ggufFile: flag.text("which GGUF file of the folder or repo is the model: a quantization, such as Q4_K_M, or a name", {
    placeholder: "FILE",
  }),
};

/**
 * Has the flag of the model name that file instead.
 * @throws UserError where there is none such, or the model is no folder or repo
 */
export async function nameGgufFile(flags: Record<string, unknown>): Promise<void> {
  const { ggufFile } = flags;
  if (typeof ggufFile !== "string") return;
  const own = flags.model === undefined ? "hfPath" : "model";
  const model = flags[own];
  if (typeof model !== "string") {
    throw new UserError("--gguf-file names a file of a model, and no model is named", {
      code: ExitCode.usage,
      hint: "Say which: --model FOLDER or REPO.",
    });
  }
  const { ggufFileOf } = await import("../hub/named-gguf");
  flags[own] = await ggufFileOf(model, ggufFile);
}
