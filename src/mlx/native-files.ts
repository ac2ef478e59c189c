/** Where the native library lies: in a checkout under dist/native, in the executable embedded. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { embeddedFolder } from "../embedded";
import { environment } from "../environment";
import { UserError } from "../errors";

const libraryName = process.platform === "darwin" ? "libmlxlm.dylib" : "libmlxlm.so";

/**
 * Path of the native library to open; `MLXLM_NATIVE` names another folder that holds `lib/`.
 * @throws UserError where it is missing
 */
export function nativeLibrary(): string {
  const folder = environment("MLXLM_NATIVE") ?? embeddedFolder("native") ?? join(import.meta.dir, "../../dist/native");
  const path = join(folder, "lib", libraryName);
  if (!existsSync(path)) {
    throw new UserError(`the native library is missing: ${path}`, { hint: "Build it: bun run build" });
  }
  return path;
}
