/** Opens a native library with what it needs beside it, and says in words why it can't be opened. */
import { CString, dlopen, type FFIFunction, type Pointer } from "bun:ffi";
import { dirname } from "node:path";
import { ExitCode, UserError } from "../errors";
import { cudaLibraries, cudaLibraryPath, driverLibrary, howToGet } from "./cuda-libraries";

/** What MLX's published Linux libraries need. */
const glibcNeeded = "2.35";

/**
 * @throws UserError where it can't be opened: with the missing library and the command that gets it, or what else it is
 */
export function openLibrary<Symbols extends Record<string, FFIFunction>>(path: string, symbols: Symbols) {
  const tried = new Set<string>();
  for (;;) {
    try {
      return dlopen(path, symbols).symbols;
    } catch (cause) {
      const { message } = cause as Error;
      const missing = missingLibrary(message);
      if (missing === null || tried.has(missing) || !preload(missing, tried)) throw explained(path, message, cause);
    }
  }
}

/** The library that a loader did not find. */
export function missingLibrary(message: string): string | null {
  return /(\blib[\w.+-]+\.so[\w.]*): cannot open shared object file/.exec(message)?.[1] ?? null;
}

/** Loads a library of NVIDIA's by its path, and first what it needs itself: the loader then takes it by its name. */
function preload(name: string, tried: Set<string>): boolean {
  tried.add(name);
  const path = cudaLibraryPath(name);
  if (path === null) return false;
  for (;;) {
    const problem = load(path);
    if (problem === null) return true;
    const missing = missingLibrary(problem);
    if (missing === null || tried.has(missing) || !preload(missing, tried)) return false;
  }
}

const lazy = 0x1;
const global = 0x100;

/** dlopen for everyone in the process; what the loader says where it fails. */
function load(path: string): string | null {
  const { symbols } = dlopen("libc.so.6", {
    dlopen: { args: ["ptr", "i32"], returns: "ptr" },
    dlerror: { args: [], returns: "ptr" },
  });
  if (symbols.dlopen(Buffer.from(`${path}\0`), lazy | global) !== null) return null;
  return new CString(symbols.dlerror() as Pointer).toString();
}

/** What a loader's message means for a user. */
export function explained(path: string, message: string, cause?: unknown): UserError {
  const failure = (text: string, hint?: string, code: ExitCode = ExitCode.failure) =>
    new UserError(text, { code, hint, cause });
  // Bun has no JIT where it can't reserve the addresses for one.
  if (message.includes("requires the JIT")) {
    const text = "out of memory: the limit of addresses is too low for mlxlm";
    return failure(text, "Raise it: ulimit -v unlimited", ExitCode.resources);
  }
  if (message.includes("failed to map segment")) {
    const hint = `No program may run from ${dirname(path)} (noexec), or memory is short (ulimit -v). A folder on another disk: XDG_CACHE_HOME=/path mlxlm …`;
    return failure(`the native library can't be loaded: ${message}`, hint, ExitCode.resources);
  }
  const [, runtime, version] = /version `(GLIBC|GLIBCXX|CXXABI)_([\d.]+)' not found/.exec(message) ?? [];
  if (runtime === "GLIBC") {
    return failure(
      `this Linux is too old for mlxlm: MLX needs glibc ${glibcNeeded} or newer, and glibc ${version} is not there`,
      "Use Ubuntu 22.04, Debian 12, Fedora 36, RHEL 10 or newer, or a container of one. ldd --version prints what is there.",
    );
  }
  if (runtime !== undefined) {
    return failure(
      `the C++ library of this Linux is too old for mlxlm: ${runtime}_${version} is missing in libstdc++.so.6`,
      "Update it (apt-get install libstdc++6, dnf update libstdc++), and see that LD_LIBRARY_PATH names no older one.",
    );
  }
  const missing = missingLibrary(message);
  if (missing === "libstdc++.so.6" || missing === "libgcc_s.so.1") {
    return failure(
      `${missing} is missing`,
      "Install the C++ runtime: apt-get install libstdc++6, or dnf install libstdc++",
    );
  }
  if (missing !== null && (missing === driverLibrary || missing in cudaLibraries || /^libcu|^libnv/.test(missing))) {
    return failure(`${missing} is missing, which this build for NVIDIA GPUs needs`, howToGet(missing));
  }
  return failure(`the native library can't be loaded: ${message}`);
}
