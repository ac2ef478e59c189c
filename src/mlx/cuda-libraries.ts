/**
 * NVIDIA's libraries: where they may lie besides the system's own paths, and how to get them.
 *
 * MLX's CUDA build names them and brings none. Most people have them through Python packages (`nvidia-*` wheels, which
 * PyTorch needs too), in folders that the system's loader does not know.
 */
import { existsSync, readdirSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { environment } from "../environment";
import { homeFolder } from "../home";

/** What MLX 0.32's CUDA build needs, by the name that its loader asks for, and the wheel that brings it. */
export const cudaLibraries: Readonly<Record<string, string>> = {
  "libcublasLt.so.13": "nvidia-cublas==13.*",
  "libcudnn.so.9": "nvidia-cudnn-cu13==9.*",
  "libcufft.so.12": "nvidia-cufft==12.*",
  "libcusolver.so.12": "nvidia-cusolver==12.*",
  "libnccl.so.2": "nvidia-nccl-cu13",
  "libnvrtc.so.13": "nvidia-cuda-nvrtc==13.*",
};

/** Brings the headers that MLX's kernels are compiled with at run time. */
export const cudaHeadersWheel = "nvidia-cuda-runtime==13.*";

export const driverLibrary = "libcuda.so.1";

type Environment = Readonly<Record<string, string | undefined>>;

const namesIn = (folder: string): string[] => {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
};

/** Folders of `folder` whose names fit, the newest version first. */
function matching(folder: string, pattern: RegExp): string[] {
  const names = namesIn(folder).filter((name) => pattern.test(name));
  return names.sort((a, b) => b.localeCompare(a, "en", { numeric: true })).map((name) => join(folder, name));
}

/** Folders in which Python packages are installed: of active environments, of the python3 on PATH, the user's, the system's. */
function sitePackages(env: Environment): string[] {
  const pythons = (env.PATH ?? "").split(delimiter).filter((folder) => folder && existsSync(join(folder, "python3")));
  const home = homeFolder();
  const prefixes = [
    environment("VIRTUAL_ENV", env),
    environment("CONDA_PREFIX", env),
    ...pythons.map(dirname),
    home && join(home, ".local"),
    "/usr/local",
    "/usr",
  ];
  const found = prefixes
    .filter((prefix) => typeof prefix === "string")
    .flatMap((prefix) => matching(join(prefix, "lib"), /^python3(\.\d+)?$/))
    .flatMap((python) => [join(python, "site-packages"), join(python, "dist-packages")]);
  return [...new Set(found)];
}

/** Folders of NVIDIA's wheels: nvidia/cu13, nvidia/cudnn and so on. */
const wheelFolders = (env: Environment) => sitePackages(env).flatMap((site) => matching(join(site, "nvidia"), /^\w/));

/** Where CUDA's toolkit may be installed. */
function toolkits(env: Environment): string[] {
  const named = [environment("CUDA_HOME", env), environment("CUDA_PATH", env)].filter((path) => path !== undefined);
  return [...named, "/usr/local/cuda", ...matching("/usr/local", /^cuda-13/), "/opt/cuda"];
}

function libraryFolders(env: Environment): string[] {
  const named = environment("MLXLM_CUDA_LIBRARIES", env)?.split(delimiter) ?? [];
  const conda = environment("CONDA_PREFIX", env);
  return [
    ...named,
    ...wheelFolders(env).map((folder) => join(folder, "lib")),
    ...(conda ? [join(conda, "lib")] : []),
    ...toolkits(env).flatMap((toolkit) => [join(toolkit, "lib64"), join(toolkit, "targets/x86_64-linux/lib")]),
    // The driver's, where containers and WSL put it.
    ...["/usr/local/nvidia/lib64", "/usr/lib/wsl/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"],
  ];
}

/** Path of a library of NVIDIA's in the first folder that has it. */
export function cudaLibraryPath(name: string, env: Environment = process.env): string | null {
  const folder = libraryFolders(env).find((one) => existsSync(join(one, name)));
  return folder === undefined ? null : join(folder, name);
}

/** The folder whose include/ has CUDA's headers; null where none is found. */
export function cudaHeaders(env: Environment = process.env): string | null {
  const places = [...toolkits(env), ...wheelFolders(env), "/usr"];
  return places.find((place) => existsSync(join(place, "include/cuda_fp16.h"))) ?? null;
}

/** The command that gets what is missing. */
export function howToGet(name: string): string {
  if (name === driverLibrary) {
    return "Install NVIDIA's driver, 580 or newer; in a container, start it with --gpus all.";
  }
  const wheels = [...Object.values(cudaLibraries), cudaHeadersWheel].map((wheel) =>
    /[*=]/.test(wheel) ? `'${wheel}'` : wheel,
  );
  const wheel = cudaLibraries[name];
  const wanted = wheel === undefined ? "" : ` (${name} is in ${wheel})`;
  return `Get CUDA's libraries${wanted}: pip install ${wheels.join(" ")} — in an active environment mlxlm finds them; other folders: MLXLM_CUDA_LIBRARIES=/a/lib:/b/lib mlxlm …`;
}
