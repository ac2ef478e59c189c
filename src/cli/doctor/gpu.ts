/** The GPU, its driver, and the libraries of CUDA. */
import { dirname, join } from "node:path";
import { environment } from "../../environment";
import { cudaLibraries, cudaLibraryPath, driverLibrary } from "../../mlx/cuda-libraries";
import { type Found, fail, gb, ok, warn } from "./finding";
import type { Engine, Probes } from "./probes";

export type Backend = "cpu" | "cuda" | "metal";

/** What the native library was built for, by what lies beside it; null where there is none. */
export function backendOf(probes: Probes): Backend | null {
  try {
    const lib = dirname(probes.nativeLibrary());
    if (probes.folder(join(lib, "mlx.metallib")).exists) return "metal";
    // CUDA's kernels are compiled at run time, with these.
    return probes.folder(join(lib, "../include")).exists ? "cuda" : "cpu";
  } catch {
    return null;
  }
}

const wantedLibraries = Object.entries(cudaLibraries);

/** The oldest driver that runs CUDA 13. */
const leastDriver = 580;
const getDriver = `Install NVIDIA's driver ${leastDriver} or newer, on Ubuntu: sudo apt install nvidia-driver-${leastDriver}`;

export interface CudaFacts {
  driver: string | null;
  /** Path of each library that was found, by its name. */
  libraries: Record<string, string | null>;
}

export function cudaFacts(probes: Probes): CudaFacts {
  // "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build …"
  const [, driver] =
    /^NVRM version:.*?\s(\d+(?:\.\d+)+)\s/m.exec(probes.read("/proc/driver/nvidia/version") ?? "") ?? [];
  const places = libraryPlaces(probes);
  const names = [driverLibrary, ...wantedLibraries.map(([name]) => name)];
  return { driver: driver ?? null, libraries: Object.fromEntries(names.map((name) => [name, places(name)])) };
}

/** Finds libraries as the loader does; and where they are loaded from by their paths. */
function libraryPlaces(probes: Probes): (name: string) => string | null {
  const { env, run, folder } = probes;
  const cache = run(["ldconfig", "-p"]) ?? run(["/sbin/ldconfig", "-p"]) ?? "";
  const cached = new Map([...cache.matchAll(/^\s+(\S+) .*=> (.+)$/gm)].map(([, name, path]) => [name!, path!]));
  const named = (env.LD_LIBRARY_PATH ?? "").split(":").filter(Boolean);
  const environments = [environment("VIRTUAL_ENV", env), environment("CONDA_PREFIX", env)].filter(
    (one) => one !== undefined,
  );
  const wheels = environments.flatMap((one) =>
    probes.list(`${one}/lib`).flatMap((python) => {
      const nvidia = `${one}/lib/${python}/site-packages/nvidia`;
      return probes.list(nvidia).map((part) => `${nvidia}/${part}/lib`);
    }),
  );
  const folders = [
    ...named,
    "/usr/local/cuda/lib64",
    "/usr/local/cuda-13/lib64",
    "/usr/lib/x86_64-linux-gnu",
    ...wheels,
  ];
  return (name) =>
    cached.get(name) ??
    folders.map((one) => join(one, name)).find((path) => folder(path).exists) ??
    cudaLibraryPath(name, env);
}

/** @param backend what the program was built for */
export function gpuFindings(backend: Backend | null, cuda: CudaFacts | null, engine: Engine | Error): Found[] {
  const gpus = engine instanceof Error ? [] : engine.gpus;
  const found = gpus.map((facts) => ok("GPU", gpuInWords(facts)));
  if (backend === "cuda" && cuda)
    return [...driverFindings(cuda), ...libraryFindings(cuda), ...found, ...noGpu(found, engine)];
  if (backend === "metal") return found.length > 0 ? found : [warn("GPU", "Metal finds none: the CPU computes")];
  if (backend === "cpu" && cuda?.driver) {
    const text = `there is an NVIDIA driver (${cuda.driver}), and this build computes on the CPU`;
    return [warn("GPU", text, "Take the build for CUDA 13 to use the GPU.")];
  }
  return [ok("GPU", "none is used: the CPU computes")];
}

function noGpu(found: readonly Found[], engine: Engine | Error): Found[] {
  if (found.length > 0 || engine instanceof Error) return [];
  return [warn("GPU", "CUDA finds none: the CPU computes", "See nvidia-smi. In a container: docker run --gpus all")];
}

function driverFindings({ driver, libraries }: CudaFacts): Found[] {
  if (driver === null || libraries[driverLibrary] === null) {
    const text = driver === null ? "there is no NVIDIA driver" : `driver ${driver}, and ${driverLibrary} is not found`;
    return [fail("driver", text, `${getDriver}. In a container: docker run --gpus all`)];
  }
  if (Number.parseInt(driver, 10) < leastDriver) return [fail("driver", `${driver} is too old for CUDA 13`, getDriver)];
  return [ok("driver", driver)];
}

function libraryFindings({ libraries }: CudaFacts): Found[] {
  const present = wantedLibraries.filter(([name]) => libraries[name] !== null);
  const missing = wantedLibraries.filter(([name]) => libraries[name] === null);
  const all = ok("CUDA libraries", `${present.length} of ${wantedLibraries.length} found`);
  return [
    ...(missing.length === 0 ? [all] : []),
    ...missing.map(([name, wheel]) => fail(name, "is not found", `pip install "${wheel}"`)),
  ];
}

function gpuInWords(facts: Record<string, string | number>): string {
  const { device_name: name, total_memory, memory_size, max_recommended_working_set_size: recommended } = facts;
  const total = total_memory ?? memory_size;
  const size = typeof total === "number" ? `, ${gb(total)}` : "";
  const use = typeof recommended === "number" ? `, of which ${gb(recommended)} at a time` : "";
  return `${name ?? "a GPU"}${size}${use}`;
}
