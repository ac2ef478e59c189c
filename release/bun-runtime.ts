/**
 * The Bun executables that mlxlm becomes part of, pinned by version and SHA-256, from the npm registry.
 *
 * The x64 one runs on every x86-64 processor: Bun 1.4 publishes one build, chooses instructions at run time, and its
 * package named "baseline" holds the same bytes.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fail, run } from "../vendor/mlx/toolchain";
import type { Platform } from "./platforms";

export const bunVersion = "1.4.5";

const sha256: Record<Platform["bun"], string> = {
  "bun-linux-x64": "f05d28a3862f4b84395c7fa32480b835dd47482e80b7e7a49a115227f0c06083",
  "bun-linux-aarch64": "04778f1f42399a69d086853e9c7af4acf574b2f21a43d0dc673853d8b84a2923",
  "bun-darwin-aarch64": "e2984124f1514e1e6bbda20adedbf07a02c443c6a5828853a15c7c7abf78e19f",
};

const hashOf = (path: string) => new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");

/** Path of a Bun executable, fetched once into `cache`. Ends the build where its hash is not the pinned one. */
export function bunRuntime(name: Platform["bun"], cache: string): string {
  const folder = join(cache, "bun", `${name}-${bunVersion}`);
  const path = join(folder, "package/bin/bun");
  if (!existsSync(path)) {
    const temporary = `${folder}.${process.pid}`;
    mkdirSync(temporary, { recursive: true });
    console.error(`fetching ${name} ${bunVersion}`);
    const packed = run(["npm", "pack", "--silent", `@oven/${name}@${bunVersion}`], { cwd: temporary });
    run(["tar", "xzf", packed.output.trim().split("\n").at(-1)!], { cwd: temporary });
    rmSync(folder, { recursive: true, force: true });
    renameSync(temporary, folder);
  }
  if (hashOf(path) !== sha256[name]) fail(`${path} is not Bun ${bunVersion} as pinned in release/bun-runtime.ts`);
  return path;
}
