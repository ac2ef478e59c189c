/** Unpacks bundles of the executable into the user's cache, once per version. */
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { bundles, type EmbeddedBundle } from "./embedded-files";
import { ExitCode, UserError } from "./errors";

/** Where mlxlm keeps what it can make again: $XDG_CACHE_HOME/mlxlm, else the platform's cache folder. */
export function cacheFolder(): string {
  if (process.env.XDG_CACHE_HOME) return join(process.env.XDG_CACHE_HOME, "mlxlm");
  return process.platform === "darwin" ? join(homedir(), "Library/Caches/mlxlm") : join(homedir(), ".cache/mlxlm");
}

function isComplete(folder: string, bundle: EmbeddedBundle): boolean {
  return bundle.files.every(({ name, size }) => {
    try {
      return statSync(join(folder, name)).size === size;
    } catch {
      return false;
    }
  });
}

function writeBundle(folder: string, bundle: EmbeddedBundle): void {
  for (const { name, path, sha256 } of bundle.files) {
    const bytes = Bun.zstdDecompressSync(readFileSync(path));
    const hash = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
    if (hash !== sha256) {
      throw new UserError(`${name} inside the executable is damaged`, { hint: "Download mlxlm again." });
    }
    const target = join(folder, name);
    mkdirSync(dirname(target), { recursive: true, mode: 0o700 });
    writeFileSync(target, bytes);
    chmodSync(target, 0o700);
  }
}

/** Writes beside the final place and renames, so that a folder with the right name is always whole. */
function unpackInto(parent: string, bundle: EmbeddedBundle): string {
  const folder = join(parent, bundle.id);
  if (isComplete(folder, bundle)) return folder;
  const temporary = `${folder}.${process.pid}.${Date.now()}`;
  try {
    writeBundle(temporary, bundle);
    rmSync(folder, { recursive: true, force: true });
    renameSync(temporary, folder);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    // Another process may have finished the same work first.
    if (!isComplete(folder, bundle)) throw error;
  }
  return folder;
}

/**
 * The folder with a bundle's files, or null in a checkout.
 * @throws UserError where neither the cache nor the temp folder can be written
 */
export function embeddedFolder(name: string): string | null {
  const bundle = bundles[name];
  if (!bundle) return null;
  try {
    return unpackInto(cacheFolder(), bundle);
  } catch (error) {
    if (error instanceof UserError) throw error;
    try {
      return unpackInto(join(tmpdir(), `mlxlm-${process.getuid?.() ?? "user"}`), bundle);
    } catch (second) {
      throw new UserError(`cannot unpack mlxlm's own files into ${cacheFolder()}: ${(second as Error).message}`, {
        code: ExitCode.resources,
        hint: "Make room there, or name another place: XDG_CACHE_HOME=/path mlxlm …",
        cause: error,
      });
    }
  }
}
