/** Someone's own MLX in place of the pinned SDK: its folders, and the libraries that it needs at run time. */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fail, run } from "./toolchain";

/** What a build reads of an MLX install. */
const parts = ["lib", "include/mlx", "share/cmake/MLX"];

/** The folder, resolved. @throws exits with one line where it is no install of MLX */
export function ownMlx(folder: string): string {
  const prefix = resolve(folder);
  if (!existsSync(prefix)) fail(`--mlx-prefix: there is no folder ${prefix}`);
  const missing = parts.filter((part) => !existsSync(join(prefix, part)));
  if (missing.length > 0) {
    fail(
      `--mlx-prefix: ${prefix} has no ${missing.join(", ")}: name the folder that MLX was installed into, or "mlx" of its wheel`,
    );
  }
  if (!libraryOf(prefix)) fail(`--mlx-prefix: ${join(prefix, "lib")} has no libmlx.so or libmlx.dylib`);
  return prefix;
}

const libraryOf = (prefix: string) =>
  ["libmlx.so", "libmlx.dylib"].map((name) => join(prefix, "lib", name)).find((path) => existsSync(path));

/**
 * The libraries that libmlx needs and the system has not: from its own lib, from *.libs folders inside or beside it, as a
 * wheel has them, or from those of the SDKs in `cache`. For Linux; macOS's libmlx needs none.
 * @throws exits with one line that names those that are nowhere
 */
export function companionsOf(prefix: string, cache: string): string[] {
  if (process.platform !== "linux") return [];
  const places = [prefix, dirname(prefix), ...foldersIn(cache)].flatMap((folder) =>
    foldersIn(folder).filter((name) => name.endsWith(".libs")),
  );
  const search = [join(prefix, "lib"), ...places];
  // ldd follows what the libraries themselves need.
  const { output } = run(["ldd", libraryOf(prefix)!], { env: { LD_LIBRARY_PATH: search.join(":") } });
  const found = [...output.matchAll(/^\s*(\S+) => (.+?)(?: \(0x[0-9a-f]+\))?$/gm)].map(([, name, path]) => ({
    name: name!,
    path: path!,
  }));
  const missing = found.filter(({ path }) => path === "not found").map(({ name }) => name);
  if (missing.length > 0) {
    fail(
      `--mlx-prefix: libmlx needs ${missing.join(", ")}, and ${prefix} has no such file: copy it into ${join(prefix, "lib")}`,
    );
  }
  const isOurs = (path: string) => search.some((folder) => realpathSync(path).startsWith(`${realpathOf(folder)}/`));
  return found.filter(({ path }) => existsSync(path) && isOurs(path)).map(({ path }) => path);
}

const realpathOf = (folder: string) => (existsSync(folder) ? realpathSync(folder) : folder);

function foldersIn(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const entries = readdirSync(folder, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(folder, name));
}
