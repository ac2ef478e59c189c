/** The flags of `mlxlm models`. */
import { flag } from "../src/cli/flags";

export const modelsFlags = {
  words: flag.list("what to do, and to which models: list, info NAME …, fit NAME …, arch, rm NAME …", {
    bare: true,
    placeholder: "list|info|fit|arch|rm NAME …",
  }),
  context: flag.integer("how many tokens are to fit beside the model, for fit (4096)", { min: 1 }),
  yes: flag.switch("remove without asking", { alias: ["y"] }),
};
