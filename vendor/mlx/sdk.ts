/**
 * MLX's binary SDK, as published in its wheels, pinned by version and SHA-256. Fetched with pip, which checks the hash;
 * unpacked once into the build's own cache.
 */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fail, python, run } from "./toolchain";

export type Backend = "cpu" | "cuda" | "metal";
export type Target = "linux-x64" | "linux-arm64" | "darwin-arm64";

interface Wheel {
  name: string;
  version: string;
  /** pip's platform tag. */
  platform: string;
  sha256: string;
}

const mlxVersion = "0.32.4";
const openblasVersion = "0.3.34.481.3";
export const sdkVersions = { mlx: mlxVersion, openblas: openblasVersion };

const mlxWheels: Partial<Record<`${Backend}/${Target}`, Wheel>> = {
  "cpu/linux-x64": {
    name: "mlx-cpu",
    version: mlxVersion,
    platform: "manylinux_2_35_x86_64",
    sha256: "0e0a24fa2ce8b6b94d2e6a90604e8813aa8e29fcb918bb2aa01cfb6d133d8cee",
  },
  "cpu/linux-arm64": {
    name: "mlx-cpu",
    version: mlxVersion,
    platform: "manylinux_2_35_aarch64",
    sha256: "1289e85e64af1fd16380bf331438bfe4afe875d27afc3e0bcf35f427c488fadd",
  },
  "cuda/linux-x64": {
    name: "mlx-cuda-13",
    version: mlxVersion,
    platform: "manylinux_2_35_x86_64",
    sha256: "94cb48fba73e5ee39467e51c35c51c691123359ca17bafd1a24cf92ad6732bee",
  },
  "metal/darwin-arm64": {
    name: "mlx-metal",
    version: mlxVersion,
    platform: "macosx_14_0_arm64",
    sha256: "8019b2db622599267d66cc168b2f0dbf5af929790a6c3b3913e00eabc42a7947",
  },
};

const openblasWheels: Partial<Record<Target, Wheel>> = {
  "linux-x64": {
    name: "scipy-openblas32",
    version: openblasVersion,
    platform: "manylinux_2_28_x86_64",
    sha256: "0595f94cd58c1f8a0d90c975621f4587337a003916b1979e834ebdf2cb5d9504",
  },
  "linux-arm64": {
    name: "scipy-openblas32",
    version: openblasVersion,
    platform: "manylinux_2_28_aarch64",
    sha256: "e085dddbc5b9aa130f83def515d31c440e69f387a90c7e63b154a5575b4466bc",
  },
};

export interface Sdk {
  /** The folder with lib/, include/ and share/. */
  prefix: string;
  /** Paths of the libraries that libmlx needs beside it. */
  companions: readonly string[];
}

/** Fetches and unpacks a wheel into `cache`, unless it lies there already. Returns the folder. */
function unpacked(wheel: Wheel, cache: string): string {
  const folder = join(cache, `${wheel.name}-${wheel.version}-${wheel.sha256.slice(0, 12)}`);
  if (existsSync(folder)) return folder;
  const temporary = `${folder}.${process.pid}`;
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true });
  const requirement = join(temporary, "requirements.txt");
  writeFileSync(requirement, `${wheel.name}==${wheel.version} --hash=sha256:${wheel.sha256}\n`);
  console.error(`fetching ${wheel.name} ${wheel.version} (${wheel.platform})`);
  const pip = run(
    [
      ...[
        python(),
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
      ],
      ...[
        "--require-hashes",
        "--platform",
        wheel.platform,
        "--python-version",
        "3.12",
        "--dest",
        temporary,
        "-r",
        requirement,
      ],
    ],
    { allowFailure: true },
  );
  if (pip.code !== 0) {
    rmSync(temporary, { recursive: true, force: true });
    const reason = /hash/i.test(pip.output)
      ? "its hash is not the pinned one: someone changed the file, or the pin is old"
      : `pip could not fetch it (${pip.output.trim().split("\n").at(-1) ?? "no output"}); check the network, or pass --mlx-prefix DIR with an MLX of your own`;
    fail(`${wheel.name} ${wheel.version}: ${reason}`);
  }
  const file = [...new Bun.Glob("*.whl").scanSync(temporary)][0];
  if (!file) fail(`${wheel.name} ${wheel.version}: pip brought no wheel`);
  run([python(), "-m", "zipfile", "-e", join(temporary, file), temporary]);
  rmSync(join(temporary, file));
  renameSync(temporary, folder);
  return folder;
}

/** The SDK for a backend and target. @throws exits with one line where there is none */
export function mlxSdk(backend: Backend, target: Target, cache: string): Sdk {
  const wheel = mlxWheels[`${backend}/${target}`];
  if (!wheel) fail(`MLX has no ${backend} build for ${target}: choose another --backend or --target`);
  const folder = unpacked(wheel, cache);
  const companions = join(folder, `${wheel.name.replaceAll("-", "_")}.libs`);
  const names = existsSync(companions) ? readdirSync(companions) : [];
  return { prefix: join(folder, "mlx"), companions: names.map((name) => join(companions, name)) };
}

/** OpenBLAS, which takes the place of the reference BLAS in MLX's Linux CPU wheel. */
export function openblas(target: Target, cache: string): string | null {
  const wheel = openblasWheels[target];
  return wheel ? join(unpacked(wheel, cache), "scipy_openblas32/lib/libscipy_openblas.so") : null;
}
