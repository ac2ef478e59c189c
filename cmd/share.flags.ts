/** The flags of `mlxlm share`: mlx-lm's. */
import { flag } from "../src/cli/flags";

export const shareFlags = {
  path: flag.path("a file or folder that one of the hosts has"),
  model: flag.path(
    "a model's folder, a GGUF file, or a repo of the Hugging Face hub in the cache of one of the hosts",
    {
      placeholder: "MODEL",
    },
  ),
  hostfile: flag.path("a JSON file with the hosts, as mlxlm launch has it; not needed where mlxlm launch starts it"),
  dst: flag.path("where it goes on the other hosts; to the same place, and repos into the cache, unless said"),
  tmpdir: flag.path("where it lies on the other hosts until it is whole; beside its place unless said", {
    placeholder: "FOLDER",
  }),
};
