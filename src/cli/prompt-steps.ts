/** The flag about how prompts are read, which several commands have. */
import { flag } from "./flags";

export const promptStepFlags = {
  prefillStepSize: flag.integer(
    "process prompts in steps of so many tokens; 2048, or 4096 where GPUs share each layer",
    { min: 1 },
  ),
};
