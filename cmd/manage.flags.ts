/** The flags of `mlxlm manage`: mlx-lm's, and a yes for scripts. */
import { flag } from "../src/cli/flags";

export const manageFlags = {
  scan: flag.switch("list the repos in the Hugging Face cache"),
  delete: flag.switch("delete repos from it, after a question"),
  pattern: flag.text("only repos whose name contains this", { default: "mlx" }),
  yes: flag.switch("delete without asking", { alias: ["y"] }),
};
