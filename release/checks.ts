/** What is checked of an executable before it is packed. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkVersions } from "./libc-versions";
import { checkedSignature } from "./macho-signature";
import type { Artefact } from "./manifest";
import type { Platform } from "./platforms";

/** Where the libraries of another Linux lie for qemu's emulation of user programs, on Debian. */
const arm64Libraries = "/usr/aarch64-linux-gnu";

/** @throws Error that names the file and what is wrong with it */
export function checkFiles({ target }: Platform, executable: string, native: string): void {
  const lib = join(native, "lib");
  const libraries = readdirSync(lib).map((name) => join(lib, name));
  if (target === "darwin-arm64") {
    const addon = join(import.meta.dir, "../node_modules/tokenizers/tokenizers.darwin-arm64.node");
    checkSignatures([executable, addon, ...libraries.filter((name) => name.endsWith(".dylib"))]);
  } else {
    checkVersions([executable, ...libraries]);
  }
}

function checkSignatures(files: readonly string[]): void {
  for (const path of files) {
    try {
      checkedSignature(readFileSync(path));
    } catch (error) {
      throw new Error(`the signature of ${path} is not valid: ${(error as Error).message}`);
    }
  }
}

/** How this machine can run a platform's executable. */
function runner({ target, backend }: Platform): { command: string[]; answered: Artefact["answered"] } | null {
  // Without a GPU the CUDA libraries are missing as well.
  if (backend === "cuda" && !Bun.which("nvidia-smi")) return null;
  if (target === `${process.platform}-${process.arch}`) return { command: [], answered: "on such a machine" };
  const qemu = Bun.which("qemu-aarch64-static") ?? Bun.which("qemu-aarch64");
  if (target !== "linux-arm64" || !qemu) return null;
  return { command: [qemu, "-L", arm64Libraries], answered: "under emulation" };
}

/**
 * Asks the demo model, in a fresh home, where this machine can run the executable.
 * @throws Error with its output where the answer is wrong
 */
export function answers(platform: Platform, executable: string): Artefact["answered"] {
  const run = runner(platform);
  if (!run) return "not run";
  const home = mkdtempSync(join(tmpdir(), "mlxlm-release-"));
  try {
    const command = [...run.command, executable, "generate", "--model", "demo", "--prompt", "What is 27 + 58?"];
    const { stdout, stderr, exitCode } = Bun.spawnSync(command, { env: { HOME: home, PATH: process.env.PATH } });
    if (exitCode !== 0 || !stdout.toString().trim().endsWith("27 + 58 = 85.")) {
      throw new Error(`${executable} does not answer: exit code ${exitCode}\n${stdout}${stderr}`);
    }
    return run.answered;
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}
