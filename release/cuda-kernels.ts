#!/usr/bin/env bun
/**
 * CUDA kernels that are shipped compiled: those that answers of the demo model need. Compiling one takes eight seconds,
 * and a first start needs four. They are kept by all that decides their code (vendor/mlx/src/cuda/nvrtc_cache.cpp), so that
 * one of another MLX or for another GPU is never taken, only of no use.
 *
 *   bun release/cuda-kernels.ts EXECUTABLE    on a machine with an NVIDIA GPU: adds what an answer compiles there
 */
import { cpSync, globSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { run } from "../vendor/mlx/toolchain";
import { pack } from "./archive";

const archive = join(import.meta.dir, "cuda-kernels.tar.gz");

/** Unpacks the shipped kernels below `work`, and returns their folder. */
export function unpackedKernels(work: string): string {
  const folder = join(work, "kernels");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  run(["tar", "xzf", archive, "-C", folder]);
  return folder;
}

async function collect(executable: string): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), "mlxlm-kernels-"));
  try {
    const folder = unpackedKernels(scratch);
    const home = join(scratch, "home");
    mkdirSync(home);
    run([executable, "generate", "--model", "demo", "--prompt", "What is 27 + 58?"], {
      env: { HOME: home, XDG_CACHE_HOME: "" },
    });
    for (const path of globSync(join(home, ".cache/mlxlm/*/kernels/*.kernel")))
      cpSync(path, join(folder, path.split("/").at(-1)!));
    await pack(archive, { folder, names: readdirSync(folder), prefix: "", time: new Date(0) });
    console.log(`${readdirSync(folder).length} kernels in ${archive}`);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

if (import.meta.main) await collect(resolve(process.argv[2] ?? "dist/mlxlm"));
