/** The flags of `mlxlm models`. */
import { flag } from "../src/cli/flags";

export const modelsFlags = {
  words: flag.list("what to do, and to which models: list, info NAME …, arch, rm NAME …", {
    bare: true,
    placeholder: "list|info|arch|rm NAME …",
  }),
  yes: flag.switch("remove without asking", { alias: ["y"] }),
};
