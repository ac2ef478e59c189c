/** What MLX's CUDA build, and the cache in front of its compiler, read from the environment as they start. */
import { existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { environment } from "../environment";
import { UserError } from "../errors";
import { cudaHeaders, cudaHeadersWheel, cudaLibraryPath, driverLibrary, howToGet } from "./cuda-libraries";

/** No folder can be made there, and MLX goes on without one. */
const nowhere = "/dev/null/none";

/**
 * Variables for the build in `folder`, for what the user did not set; empty where it is not for CUDA.
 *
 * Kernels are compiled at run time. vendor/mlx/src/cuda/nvrtc_cache.cpp keeps them beside the libraries. MLX's own cache is
 * turned off: it lies in the temp folder, where another user could put code in it, its names do not tell one GPU from
 * another, and two processes can read half of what a third writes.
 * @throws UserError where the headers for that are missing
 */
export function cudaEnvironment(folder: string): Record<string, string> {
  // Only that build carries headers for its kernels.
  if (!existsSync(join(folder, "include"))) return {};
  const kernels = join(folder, "kernels");
  const settings: Record<string, string> = { MLX_PTX_CACHE_DIR: nowhere, MLXLM_CUDA_CACHE: kernels };
  try {
    mkdirSync(kernels, { recursive: true, mode: 0o700 });
  } catch {
    // Where nothing can be written, kernels are compiled at each start.
  }
  const headers = cudaHeaders();
  if (headers === null) {
    // Without a GPU nothing is compiled.
    if (cudaLibraryPath(driverLibrary) === null) return settings;
    throw new UserError("CUDA's headers are missing, with which kernels are compiled", {
      hint: howToGet(cudaHeadersWheel),
    });
  }
  if (!environment("CUDA_HOME") && !environment("CUDA_PATH")) settings.CUDA_HOME = headers;
  return settings;
}

/** The folder of a build, by its library's path. */
export const buildFolder = (library: string) => dirname(dirname(library));
