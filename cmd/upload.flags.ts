/** The flags of `mlxlm upload`: mlx-lm's. */
import { flag } from "../src/cli/flags";

export const uploadFlags = {
  path: flag.path("the model's folder; its README.md is written anew, hidden files stay here", {
    default: "mlx_model",
  }),
  uploadRepo: flag.text("repo of the Hugging Face hub to upload it to; made where there is none", {
    placeholder: "REPO",
    required: true,
  }),
};
