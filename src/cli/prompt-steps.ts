/** The flag about how prompts are read, which several commands have. */
import { flag } from "./flags";

export const promptStepFlags = {
  prefillStepSize: flag.integer("process prompts in steps of so many tokens; 2048, on several GPUs so many for each", {
    min: 1,
  }),
};
