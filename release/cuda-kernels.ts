#!/usr/bin/env bun
/**
 * CUDA kernels that are shipped compiled: those that answers of the demo model and of the commonest models need. Compiling one takes
 * eight seconds, and a first start needs four to ten. They are kept by all that decides their code (vendor/mlx/src/cuda/nvrtc_cache.cpp),
 * so that one of another MLX or for another GPU is never taken, only of no use.
 *
 *   bun release/cuda-kernels.ts EXECUTABLE    on a machine with an NVIDIA GPU: packs what answers compile there
 *
 * The executable is one that ships none, as build.ts makes it without --kernels: what it compiles is all that today's texts need.
 */
import { cpSync, globSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { run } from "../vendor/mlx/toolchain";
import { pack } from "./archive";

const root = join(import.meta.dir, "..");
const archive = join(import.meta.dir, "cuda-kernels.tar.gz");

/** Of bench/shapes.json. What a layer compiles does not hang on how many there are. */
const shapes = [
  ...["llama-8b", "llama-1b", "llama-3b"],
  ...["qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b"],
  ...["gemma3-1b", "gemma3-4b", "gemma3-12b"],
];
const packings = [[], ["--bits", "4"]];

/** Unpacks the shipped kernels below `work`, and returns their folder. */
export function unpackedKernels(work: string): string {
  const folder = join(work, "kernels");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  run(["tar", "xzf", archive, "-C", folder]);
  return folder;
}

/** Answers of a model, a long prompt and several at once among them, with an empty cache of kernels in `home`. */
async function answer(executable: string, model: string, home: string): Promise<void> {
  mkdirSync(home);
  const env = { ...process.env, HOME: home, XDG_CACHE_HOME: "", BUN_BE_BUN: undefined };
  const begin = (...more: string[]) => Bun.spawn([executable, ...more], { env, stdout: "ignore", stderr: "inherit" });
  for (const command of [
    ["generate", "--model", model, "--prompt", "What is 27 + 58?", "-m", "8"],
    ["benchmark", "--model", model, "-p", "300", "-g", "8", "-n", "1", "-b", "4"],
  ]) {
    const code = await begin(...command).exited;
    if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}`);
  }
}

/** A model of random weights with two layers. */
async function make(shape: string, packing: readonly string[], folder: string): Promise<void> {
  const command = [process.execPath, join(root, "bench/random-model.ts"), shape, folder, "--layers", "2", ...packing];
  const made = Bun.spawn(command, { env: { ...process.env, BUN_BE_BUN: "1" }, stdout: "ignore", stderr: "inherit" });
  if ((await made.exited) !== 0) throw new Error(`${shape} was not made`);
}

async function collect(executable: string): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), "mlxlm-kernels-"));
  try {
    const folder = join(scratch, "kernels");
    mkdirSync(folder);
    const all = shapes.flatMap((shape) => packings.map((packing) => ({ shape, packing })));
    let next = 0;
    const work = async () => {
      for (let i = next++; i < all.length; i = next++) {
        const { shape, packing } = all[i]!;
        const model = join(scratch, `model-${i}`);
        await make(shape, packing, model);
        await answer(executable, model, join(scratch, `home-${i}`));
        rmSync(model, { recursive: true });
      }
    };
    await Promise.all([
      answer(executable, "demo", join(scratch, "home-demo")),
      ...Array.from({ length: Math.min(all.length, availableParallelism()) }, work),
    ]);
    for (const path of globSync(join(scratch, "home-*/.cache/mlxlm/*/kernels/*.kernel")))
      cpSync(path, join(folder, path.split("/").at(-1)!));
    const names = readdirSync(folder);
    // Each model has kernels of its own shapes.
    if (names.length <= all.length) {
      throw new Error(
        `${executable} compiled ${names.length} kernels only: take one that ships none, on a machine with an NVIDIA GPU`,
      );
    }
    await pack(archive, { folder, names, prefix: "", time: new Date(0) });
    console.log(`${names.length} kernels in ${archive}`);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

if (import.meta.main) await collect(resolve(process.argv[2] ?? "dist/mlxlm"));
