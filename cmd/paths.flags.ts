/** The flags of `mlxlm paths`. */
import { flag } from "../src/cli/flags";

export const pathsFlags = {
  clean: flag.switch("remove what other builds of mlxlm unpacked; not while one of them runs"),
};
