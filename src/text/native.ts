/** The compiled half of the `tokenizers` package, one library a platform. */
import { tmpdir } from "node:os";
import { ExitCode, UserError } from "../errors";

/**
 * The package's own index.js searches for the library at run time, which a compiled executable can't. Here every path
 * is literal: `bun build --compile` knows its target's platform and architecture, keeps that branch alone, and embeds
 * one library. A function that returns early would not do: what stands after a return is still bundled.
 */
function load(): typeof import("tokenizers") {
  try {
    return process.platform === "darwin"
      ? require("tokenizers/tokenizers.darwin-arm64.node")
      : process.arch === "arm64"
        ? require("tokenizers/tokenizers.linux-arm64-gnu.node")
        : require("tokenizers/tokenizers.linux-x64-gnu.node");
  } catch (cause) {
    // An executable unpacks what it embeds before it can be loaded.
    throw new UserError(`The tokenizer library can't be loaded: ${(cause as Error).message}.`, {
      code: ExitCode.resources,
      hint: `See that ${tmpdir()} can be written and has room, or set TMPDIR to a folder where that is so.`,
      cause,
    });
  }
}

export const native = load();
