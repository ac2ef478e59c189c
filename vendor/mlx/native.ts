/** Compiles the C ABI against an SDK and gathers what must lie beside it at run time. */
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { copyLicences, type Xgrammar, xgrammar } from "../xgrammar/source";
import { crossBuildMacos, linuxArm64Settings, zigSettings } from "./cross";
import { cxxSource } from "./generate";
import { companionsOf } from "./own-mlx";
import { type Backend, mlxSdk, openblas, type Sdk, type Target } from "./sdk";
import { fail, run, type Toolchain } from "./toolchain";

export interface NativeBuild {
  backend: Backend;
  target: Target;
  /** Someone's own MLX install instead of the pinned SDK. */
  mlxPrefix?: string;
  /** Folder for downloads and intermediate files. */
  cache: string;
  /** Folder that gets lib/, licences/ (and include/ for CUDA, whose kernels are compiled at run time). */
  output: string;
}

/** Writes a file only where its content changes, so that ninja sees no news. */
function writeIfChanged(path: string, content: string): void {
  if (!existsSync(path) || readFileSync(path, "utf8") !== content) writeFileSync(path, content);
}

export function buildNative(options: NativeBuild, tools: Toolchain): void {
  const { backend, target, mlxPrefix, cache } = options;
  const sdks = join(cache, "sdk");
  const sdk = mlxPrefix
    ? { prefix: mlxPrefix, companions: companionsOf(mlxPrefix, sdks) }
    : mlxSdk(backend, target, sdks);
  const blas = backend === "cpu" && !mlxPrefix ? openblas(target, sdks) : null;

  const build = join(cache, "build", `${target}-${backend}${mlxPrefix ? "-own" : ""}`);
  mkdirSync(join(build, "generated"), { recursive: true });
  writeIfChanged(join(build, "generated/ops.cpp"), cxxSource());

  const host = `${process.platform}-${process.arch}`;
  const cross = crossSettings(target, host, cache);
  const grammars = xgrammar(cache, target, tools, cross);
  if (target !== host && target === "darwin-arm64") crossBuildMacos(sdk.prefix, grammars, build, cache);
  else compileWithCmake(build, { prefix: sdk.prefix, blas, grammars }, backend, cross, tools);
  gather(build, sdk, blas, options);
  copyLicences(grammars, join(options.output, "licences"));
}

/** CMake's settings for another machine than this one; none for this one. */
function crossSettings(target: Target, host: string, cache: string): string[] {
  if (target === host) return [];
  if (target === "darwin-arm64") return zigSettings(cache);
  if (target === "linux-arm64" && process.platform === "linux") return linuxArm64Settings();
  return fail(`a library for ${target} is built on such a machine (this one is ${host})`);
}

function compileWithCmake(
  build: string,
  { prefix, blas, grammars }: { prefix: string; blas: string | null; grammars: Xgrammar },
  backend: Backend,
  cross: readonly string[],
  { cmake, ninja }: Toolchain,
): void {
  const settings = {
    CMAKE_MAKE_PROGRAM: ninja,
    CMAKE_BUILD_TYPE: "Release",
    CMAKE_PREFIX_PATH: prefix,
    MLXLM_BACKEND: backend,
    MLXLM_GENERATED: join(build, "generated"),
    MLXLM_XGRAMMAR: grammars.library,
    MLXLM_XGRAMMAR_INCLUDES: grammars.includes.join(";"),
    MLXLM_OPENBLAS: blas ?? "",
  };
  const defines = Object.entries(settings).map(([name, value]) => `-D${name}=${value}`);
  const configure = ["-S", import.meta.dir, "-B", build, "-G", "Ninja", ...cross, ...defines];
  // Configuring anew costs a second: only when its arguments or the build file changed.
  const stamp = `${configure.join("\n")}\n${readFileSync(join(import.meta.dir, "CMakeLists.txt"), "utf8")}`;
  const stampFile = join(build, "configured.txt");
  if (!existsSync(stampFile) || readFileSync(stampFile, "utf8") !== stamp) {
    rmSync(join(build, "CMakeCache.txt"), { force: true });
    run([cmake, ...configure]);
    writeFileSync(stampFile, stamp);
  }
  run([cmake, "--build", build]);
}

function gather(build: string, sdk: Sdk, blas: string | null, options: NativeBuild): void {
  const lib = join(options.output, "lib");
  mkdirSync(lib, { recursive: true });
  const isLibrary = (name: string) => /\.(so|dylib|metallib)(\.|$)/.test(name);
  const from = (folder: string) =>
    readdirSync(folder)
      .filter(isLibrary)
      .map((name) => join(folder, name));

  const wanted = new Map<string, string>();
  for (const file of [...from(build), ...from(join(sdk.prefix, "lib"))]) wanted.set(basename(file), file);
  if (blas) {
    wanted.set(basename(blas), blas);
    // libmlx names its reference BLAS and LAPACK, and takes nothing from them: all that it calls is forwarded to
    // OpenBLAS. The forwards stand in for both, and what those two need is not needed either.
    for (const file of sdk.companions.filter((name) => /^lib(blas|lapack)-/.test(basename(name)))) {
      wanted.set(basename(file), join(build, "libmlxlm_blas.so"));
    }
  } else {
    for (const file of sdk.companions) wanted.set(basename(file), file);
  }
  for (const [name, file] of wanted) copyIfNewer(file, join(lib, name));
  for (const name of readdirSync(lib)) {
    if (!wanted.has(name)) rmSync(join(lib, name), { recursive: true });
  }

  const include = join(options.output, "include");
  rmSync(include, { recursive: true, force: true });
  if (options.backend !== "cuda") return;
  // MLX's own headers are for C++ programs; what its kernels include of them is in the library.
  for (const name of readdirSync(join(sdk.prefix, "include")).filter((one) => one !== "mlx")) {
    cpSync(join(sdk.prefix, "include", name), join(include, name), { recursive: true });
  }
}

function copyIfNewer(from: string, to: string): void {
  const [source, target] = [Bun.file(from), Bun.file(to)];
  if (existsSync(to) && target.size === source.size && target.lastModified >= source.lastModified) return;
  // A new file, not new bytes in the old one: a running process may have it mapped.
  rmSync(to, { force: true });
  copyFileSync(from, to);
}
