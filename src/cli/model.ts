/** The model that a command works on, with a bar while it is downloaded. */
import * as models from "../generate/open-model";
import type { Output } from "./output";

/** @throws UserError where there is no such model */
export function findModel(name: string, out: Output, signal: AbortSignal): Promise<models.FoundModel> {
  const bar = out.progress(`Downloading ${name}`, { unit: "bytes" });
  const onDownload = (done: number, total: number) => bar.at(done, total);
  return models.findModel(name, { onDownload, warn: (message) => out.warn(message), signal }).finally(() => bar.end());
}

/** @throws UserError for whatever keeps the model from running */
export function openModel(
  name: string | undefined,
  out: Output,
  signal: AbortSignal,
  options: Pick<
    models.OpenOptions,
    "adapterPath" | "quantizeActivations" | "draftHead" | "pipeline" | "isWhole" | "movesCaches"
  > = {},
): Promise<models.OpenedModel> {
  const { adapterPath, quantizeActivations, draftHead, pipeline, isWhole, movesCaches } = options;
  const bar = out.progress(`Downloading ${name}`, { unit: "bytes" });
  return models
    .openModel(name, {
      ...{ adapterPath, quantizeActivations, draftHead, pipeline, isWhole, movesCaches, signal },
      onDownload(done, total) {
        bar.at(done, total);
        if (done >= total) bar.end();
      },
      onDemo: () =>
        out.info("No model was named: this is the small demo model inside mlxlm. Another one: --model FOLDER or REPO"),
      warn: (message) => out.warn(message),
    })
    .finally(() => bar.end());
}
