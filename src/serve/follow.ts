/** A rank beside the first one of a server: it opens the same models and makes the same steps. */
import { freeModel } from "../convert/load";
import { openModel } from "../generate/open-model";
import { leastOf } from "../generate/ranks/alike";
import { follow } from "../generate/ranks/follow";
import type { Followed } from "../generate/ranks/followed-model";
import type { ToldModel } from "../generate/ranks/orders";
import { opener } from "./catalogue";
import { MemoryBudget } from "./engine/memory-budget";
import { steppingAlone } from "./engine/scheduler";
import { draftsOf } from "./models/served-model";
import type { RunOptions } from "./run";

/** Opens what the first rank names, as that does. */
export function followedOpener(
  options: Pick<RunOptions, "chatTemplate" | "draftModel" | "draftHead" | "pipeline" | "promptCacheDir" | "settings">,
  warn: (message: string) => void,
): (source: ToldModel) => Promise<Followed> {
  const { chatTemplate, draftModel, draftHead, pipeline, settings, promptCacheDir } = options;
  const open = opener({ chatTemplate, draftHead, pipeline, warn, movesCaches: promptCacheDir !== undefined });
  return async ({ name, open: opens, adapterPath }) => {
    const opened = await open({ name, open: opens, adapterPath });
    const draft =
      draftModel === undefined
        ? undefined
        : await openModel(draftModel, { warn, onAllOrNone: true }).catch((error) => {
            freeModel(opened);
            throw error;
          });
    const drafts = draftsOf(settings, opened, draft);
    return {
      ...opened,
      stepper: (way) => steppingAlone(opened.model, { ...settings, draft: way === "beside" ? null : drafts }),
      dispose() {
        freeModel(opened);
        draft?.model.dispose();
      },
    };
  };
}

/** Runs until the first rank says that this is the end. */
export async function followServer(options: RunOptions, warn: (message: string) => void): Promise<void> {
  leastOf(new MemoryBudget(options.maxMemory).limit);
  await follow(followedOpener(options, warn));
}
