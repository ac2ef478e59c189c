/** Completions and man pages, as the program itself prints them. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../vendor/mlx/toolchain";

/** The file names under which each shell finds them. */
const completions = { bash: "mlxlm.bash", zsh: "_mlxlm", fish: "mlxlm.fish" };

/**
 * Writes them into folders of `folder`, and returns the folders' names.
 * @param program the entry of the source: an executable for another machine can't be asked
 */
export function documents(program: string, folder: string): string[] {
  const ask = (...words: string[]) => run([process.execPath, program, ...words], { env: { NO_COLOR: "1" } }).output;
  mkdirSync(join(folder, "completions"), { recursive: true });
  for (const [shell, name] of Object.entries(completions)) {
    writeFileSync(join(folder, "completions", name), ask("completion", shell));
  }
  ask("man", join(folder, "man"));
  return ["completions", "man"];
}
