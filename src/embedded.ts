/** Where the executable's bundles lie on the disk: the user's cache, or the temp folder where that can't be used. */
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { bundles } from "./embedded-files";
import { environment } from "./environment";
import { ExitCode, UserError } from "./errors";
import { homeFolder } from "./home";
import { unpackedBundle } from "./unpacked-bundle";

/** Where mlxlm keeps what it can make again: $XDG_CACHE_HOME/mlxlm, else the platform's cache folder, else the temp folder. */
export function cacheFolder(): string {
  const named = environment("XDG_CACHE_HOME");
  // A library's path must be whole: the loader takes a relative one for a module's name.
  if (named) return resolve(named, "mlxlm");
  const home = homeFolder();
  if (home === null) return temporaryFolder();
  return resolve(home, process.platform === "darwin" ? "Library/Caches/mlxlm" : ".cache/mlxlm");
}

/** Where bundles are unpacked if the cache can't be written. */
export const temporaryFolder = () => join(tmpdir(), `mlxlm-${process.getuid?.() ?? "user"}`);

/** A file of a bundle as text, without unpacking it; null in a checkout. */
export function embeddedText(bundle: string, name: string): string | null {
  const file = bundles[bundle]?.files.find((one) => one.name === name);
  return file ? Bun.zstdDecompressSync(readFileSync(file.path)).toString() : null;
}

/**
 * The folder with a bundle's files, or null in a checkout.
 * @throws UserError where neither the cache nor the temp folder can be used, or the executable is damaged
 */
export function embeddedFolder(name: string): string | null {
  const bundle = bundles[name];
  if (!bundle) return null;
  const refusals: string[] = [];
  for (const parent of new Set([cacheFolder(), temporaryFolder()])) {
    try {
      return unpackedBundle(parent, bundle);
    } catch (error) {
      if (error instanceof UserError) throw error;
      refusals.push(`${parent} (${(error as Error).message})`);
    }
  }
  throw new UserError(`cannot unpack mlxlm's own files into ${refusals.join(" or ")}`, {
    code: ExitCode.resources,
    hint: "Make room there, or name another place: XDG_CACHE_HOME=/path mlxlm …",
  });
}
