/** A rank beside the first one of a server: it opens the same model and makes the same steps. */
import { demoName } from "../demo/folder";
import { openModel } from "../generate/open-model";
import { type Follower, follow } from "../generate/ranks/follow";
import { opener } from "./catalogue";
import { steppingAlone } from "./engine/scheduler";
import { draftsOf } from "./models/served-model";
import type { RunOptions } from "./run";

/** Runs until the first rank says that this is the end. @throws UserError where the model cannot be opened */
export async function followServer(options: RunOptions, warn: (message: string) => void): Promise<void> {
  const { model = demoName, adapterPath, chatTemplate, draftModel, draftHead, pipeline, settings } = options;
  const open = opener({ chatTemplate, draftHead, pipeline, warn, movesCaches: options.promptCacheDir !== undefined });
  await follow(async (): Promise<Follower> => {
    const opened = await open({ name: model, open: model, adapterPath });
    const draft = draftModel === undefined ? undefined : await openModel(draftModel, { warn });
    return {
      ...opened,
      stepper: () => steppingAlone(opened.model, { ...settings, draft: draftsOf(settings, opened, draft) }),
      dispose() {
        opened.draftHead?.dispose();
        opened.model.dispose();
        draft?.model.dispose();
      },
    };
  });
}
