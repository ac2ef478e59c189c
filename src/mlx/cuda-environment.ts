/** What MLX's CUDA build reads from the environment as it starts. */
import { dlopen } from "bun:ffi";
import { existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { environment } from "../environment";
import { UserError } from "../errors";
import { cudaHeaders, cudaHeadersWheel, cudaLibraryPath, driverLibrary, howToGet } from "./cuda-libraries";

const attributes = { major: 75, minor: 76 };

/** The first GPU's architecture, such as "sm_90"; null where there is no driver or no GPU. */
function architecture(): string | null {
  const open = (path: string) =>
    dlopen(path, {
      cuInit: { args: ["u32"], returns: "i32" },
      cuDeviceGet: { args: ["ptr", "i32"], returns: "i32" },
      cuDeviceGetAttribute: { args: ["ptr", "i32", "i32"], returns: "i32" },
    }).symbols;
  let driver: ReturnType<typeof open>;
  try {
    driver = open(driverLibrary);
  } catch {
    const path = cudaLibraryPath(driverLibrary);
    if (path === null) return null;
    driver = open(path);
  }
  const value = new Int32Array(new ArrayBuffer(4));
  if (driver.cuInit(0) !== 0 || driver.cuDeviceGet(value, 0) !== 0) return null;
  const device = value[0]!;
  const [major, minor] = [attributes.major, attributes.minor].map((attribute) =>
    driver.cuDeviceGetAttribute(value, attribute, device) === 0 ? value[0] : null,
  );
  return major === null || minor === null ? null : `sm_${major}${minor}`;
}

/**
 * Variables for the build in `folder`, empty where it is not for CUDA.
 *
 * Kernels are compiled at run time and kept. By itself MLX keeps them in the temp folder, where another user could put
 * code in their place, and under names that do not tell one GPU from another.
 * @throws UserError where the headers for that are missing
 */
export function cudaEnvironment(folder: string): Record<string, string> {
  // Only that build carries headers for its kernels.
  if (!existsSync(join(folder, "include"))) return {};
  const gpu = architecture();
  if (gpu === null) return {};
  const headers = cudaHeaders();
  if (headers === null) {
    throw new UserError("CUDA's headers are missing, with which kernels are compiled", {
      hint: howToGet(cudaHeadersWheel),
    });
  }
  const settings: Record<string, string> = {};
  if (!environment("CUDA_HOME") && !environment("CUDA_PATH")) settings.CUDA_HOME = headers;
  if (!environment("MLX_PTX_CACHE_DIR")) {
    const kernels = join(folder, "kernels", gpu);
    try {
      mkdirSync(kernels, { recursive: true, mode: 0o700 });
      settings.MLX_PTX_CACHE_DIR = kernels;
    } catch {
      // Where nothing can be written, MLX compiles anew each time.
    }
  }
  return settings;
}

/** The folder of a build, by its library's path. */
export const buildFolder = (library: string) => dirname(dirname(library));
