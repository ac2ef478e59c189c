/** Which versions of the C and C++ runtime the native files need: more than is promised would end a user's start. */
import { run } from "../vendor/mlx/toolchain";

/** What is promised: Ubuntu 22.04, Debian 12, RHEL 10 and newer. MLX's wheels need as much. */
export const promised = { GLIBC: "2.35", GLIBCXX: "3.4.30", CXXABI: "1.3.13" } as const;
type Runtime = keyof typeof promised;

export const isNewer = (a: string, b: string) => a.localeCompare(b, "en", { numeric: true }) > 0;

/** The newest version of each runtime that ELF files need, by readelf. */
export function neededVersions(files: readonly string[]): Partial<Record<Runtime, string>> {
  const { output } = run(["readelf", "--version-info", "--wide", ...files]);
  const needed: Partial<Record<Runtime, string>> = {};
  for (const [, name, version] of output.matchAll(/Name: (GLIBC|GLIBCXX|CXXABI)_([\d.]+)/g)) {
    const runtime = name as Runtime;
    if (needed[runtime] === undefined || isNewer(version!, needed[runtime])) needed[runtime] = version!;
  }
  return needed;
}

/** @throws Error that names what is needed beyond the promise */
export function checkVersions(files: readonly string[]): void {
  for (const [runtime, version] of Object.entries(neededVersions(files))) {
    if (isNewer(version, promised[runtime as Runtime])) {
      throw new Error(`the native files need ${runtime}_${version}; promised is ${promised[runtime as Runtime]}`);
    }
  }
}
