/** What a release is made of: one executable for each kind of machine. */
import type { Backend, Target } from "../vendor/mlx/sdk";

export interface Platform {
  /** Names the archive, and the npm package @mlxlm/NAME. */
  name: string;
  target: Target;
  backend: Backend;
  /** Package of the Bun executable that mlxlm becomes part of. */
  bun: "bun-linux-x64" | "bun-linux-aarch64" | "bun-darwin-aarch64";
  /** What a user reads about it. */
  words: string;
  npm: { os: "linux" | "darwin"; cpu: "x64" | "arm64"; libc?: "glibc" };
  /** npm's wrapper brings it where os, cpu and libc fit; others are installed by name. */
  isDefault: boolean;
}

export const platforms: readonly Platform[] = [
  {
    name: "darwin-arm64",
    target: "darwin-arm64",
    backend: "metal",
    bun: "bun-darwin-aarch64",
    words: "macOS 14 or newer, Apple silicon, Metal",
    npm: { os: "darwin", cpu: "arm64" },
    isDefault: true,
  },
  {
    name: "linux-x64",
    target: "linux-x64",
    backend: "cpu",
    bun: "bun-linux-x64",
    words: "Linux x64, CPU, glibc 2.35 or newer",
    npm: { os: "linux", cpu: "x64", libc: "glibc" },
    isDefault: true,
  },
  {
    name: "linux-x64-cuda",
    target: "linux-x64",
    backend: "cuda",
    bun: "bun-linux-x64",
    words: "Linux x64, NVIDIA, CUDA 13, glibc 2.35 or newer",
    npm: { os: "linux", cpu: "x64", libc: "glibc" },
    isDefault: false,
  },
  {
    name: "linux-arm64",
    target: "linux-arm64",
    backend: "cpu",
    bun: "bun-linux-aarch64",
    words: "Linux arm64, CPU, glibc 2.35 or newer",
    npm: { os: "linux", cpu: "arm64", libc: "glibc" },
    isDefault: true,
  },
];

/** The platform of a name. @throws Error that lists the names */
export function platformNamed(name: string): Platform {
  const found = platforms.find((platform) => platform.name === name);
  if (!found) throw new Error(`there is no platform ${name}: ${platforms.map((one) => one.name).join(", ")}`);
  return found;
}
