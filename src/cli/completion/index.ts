/** Shell completions. */
import { bash } from "./bash";
import { fish } from "./fish";
import type { CompletionSource, Shell } from "./words";
import { zsh } from "./zsh";

export { shells } from "./words";

/** A script that the shell sources; zsh may also find it in a folder of its fpath, as `_mlxlm`. */
export const completion = (shell: Shell, source: CompletionSource): string => ({ bash, zsh, fish })[shell](source);
