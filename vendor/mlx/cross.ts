/**
 * The native library for macOS, compiled elsewhere with zig: a check that the ABI compiles against the Metal SDK and that
 * libmlx.dylib has every symbol it needs (the linker refuses a missing one). What ships is built on a Mac by Apple's
 * clang: zig links a C++ runtime of its own, through which an exception of libmlx's might not be caught.
 */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
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

/** Compiles and links libmlxlm.dylib into `build`. */
export function crossBuildMacos(sdkPrefix: string, build: string, cache: string): void {
  mkdirSync(build, { recursive: true });
  const source = join(import.meta.dir, "src");
  const files = [...new Bun.Glob("**/*.cpp").scanSync(source)].map((name) => join(source, name));
  run([
    ...[zig(cache), "c++", "-target", "aarch64-macos.14.0", "-std=c++20", "-O2", "-shared", "-fPIC"],
    // On arm64 the kernels need no choice between instruction sets: every machine has NEON.
    "-DMLXLM_ISA=plain",
    ...[`-I${join(sdkPrefix, "include")}`, `-I${source}`, ...files, join(build, "generated/ops.cpp")],
    ...[`-L${join(sdkPrefix, "lib")}`, "-lmlx", "-Wl,-rpath,@loader_path", "-Wl,-install_name,@rpath/libmlxlm.dylib"],
    ...["-o", join(build, "libmlxlm.dylib")],
  ]);
}
