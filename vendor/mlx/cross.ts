/**
 * The native library, compiled for other machines than this one.
 *
 * For Linux on arm64 the distribution's cross compiler does what g++ does on such a machine: the same libstdc++, so the
 * result is the one that ships.
 *
 * For macOS it is compiled elsewhere with zig: a check that the ABI compiles against the Metal SDK and that
 * libmlx.dylib has every symbol it needs (the linker refuses a missing one). What ships is built on a Mac by Apple's
 * clang: zig links a C++ runtime of its own, through which an exception of libmlx's might not be caught.
 */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Xgrammar } from "../xgrammar/source";
import { fail, python, run } from "./toolchain";

const zigVersion = "0.17.1";

function zig(cache: string): string {
  const folder = join(cache, `zig-${zigVersion}`);
  const binary = join(folder, "ziglang/zig");
  if (!existsSync(binary)) {
    console.error(`fetching zig ${zigVersion}`);
    const pip = run([python(), "-m", "pip", "install", "--quiet", "--target", folder, `ziglang==${zigVersion}`], {
      allowFailure: true,
    });
    if (pip.code !== 0)
      fail(`zig ${zigVersion} is needed to compile for macOS here, and pip could not fetch it\n${pip.output}`);
  }
  return binary;
}

const macos = ["-target", "aarch64-macos.14.0"];

/** What makes CMake compile a static library for macOS: it wants programs, not programs with arguments. */
export function zigSettings(cache: string): string[] {
  const folder = join(cache, `zig-${zigVersion}-programs`);
  mkdirSync(folder, { recursive: true });
  const program = (name: string, ...command: string[]) => {
    const path = join(folder, name);
    const words = [zig(cache), ...command].map((word) => `'${word}'`).join(" ");
    writeFileSync(path, `#!/bin/sh\nexec ${words} "$@"\n`, { mode: 0o755 });
    return path;
  };
  const settings = {
    CMAKE_SYSTEM_NAME: "Generic",
    CMAKE_TRY_COMPILE_TARGET_TYPE: "STATIC_LIBRARY",
    CMAKE_CXX_COMPILER: program("c++", "c++", ...macos),
    CMAKE_AR: program("ar", "ar"),
    CMAKE_RANLIB: program("ranlib", "ranlib"),
  };
  return Object.entries(settings).map(([name, value]) => `-D${name}=${value}`);
}

/** What CMake needs to know to compile for Linux on arm64 with the distribution's cross compiler. */
export function linuxArm64Settings(): string[] {
  const prefix = "aarch64-linux-gnu-";
  if (!Bun.which(`${prefix}g++`)) {
    fail("to compile for linux-arm64 here, install its cross compiler: apt-get install g++-aarch64-linux-gnu");
  }
  const settings = {
    CMAKE_SYSTEM_NAME: "Linux",
    CMAKE_SYSTEM_PROCESSOR: "aarch64",
    CMAKE_C_COMPILER: `${prefix}gcc`,
    CMAKE_CXX_COMPILER: `${prefix}g++`,
    CMAKE_STRIP: `${prefix}strip`,
  };
  return Object.entries(settings).map(([name, value]) => `-D${name}=${value}`);
}

/** Compiles and links libmlxlm.dylib into `build`. */
export function crossBuildMacos(sdkPrefix: string, grammars: Xgrammar, build: string, cache: string): void {
  mkdirSync(build, { recursive: true });
  const source = join(import.meta.dir, "src");
  const names = [...new Bun.Glob("**/*.cpp").scanSync(source)].filter((name) => name !== "cuda/nvrtc_cache.cpp");
  const files = names.map((name) => join(source, name));
  run([
    ...[zig(cache), "c++", ...macos, "-std=c++20", "-O2", "-shared", "-fPIC"],
    // On arm64 the kernels need no choice between instruction sets: every machine has NEON.
    "-DMLXLM_ISA=plain",
    ...[`-I${join(sdkPrefix, "include")}`, `-I${source}`, ...grammars.includes.map((path) => `-isystem${path}`)],
    ...[...files, join(import.meta.dir, "../xgrammar/src/grammar.cpp"), join(build, "generated/ops.cpp")],
    ...[
      grammars.library,
      `-L${join(sdkPrefix, "lib")}`,
      "-lmlx",
      "-Wl,-rpath,@loader_path",
      "-Wl,-install_name,@rpath/libmlxlm.dylib",
    ],
    ...["-o", join(build, "libmlxlm.dylib")],
  ]);
}
