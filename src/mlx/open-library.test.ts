import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cudaHeaders, cudaLibraryPath } from "./cuda-libraries";
import { explained, missingLibrary, openLibrary } from "./open-library";

const path = "/home/u/.cache/mlxlm/0123456789abcdef/lib/libmlxlm.so";
const said = (loaders: string) => {
  const { message, hint, code } = explained(path, `Failed to open library "${path}": ${loaders}`);
  return { message, hint, code };
};

test("an old glibc is named, with what to do", () => {
  const { message, hint } = said(
    "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.35' not found (required by libmlx.so)",
  );
  expect(message).toContain("needs glibc 2.35 or newer");
  expect(hint).toContain("Debian 12");
});

test("an old or missing C++ library is named", () => {
  expect(said("libstdc++.so.6: version `GLIBCXX_3.4.30' not found (required by libmlx.so)").message).toContain(
    "GLIBCXX_3.4.30",
  );
  expect(said("libstdc++.so.6: cannot open shared object file: No such file or directory").hint).toContain(
    "apt-get install libstdc++6",
  );
});

test("a library of NVIDIA's comes with the command that gets it", () => {
  const { message, hint } = said("libcudnn.so.9: cannot open shared object file: No such file or directory");
  expect(message).toContain("libcudnn.so.9 is missing");
  expect(hint).toContain("pip install");
  expect(hint).toContain("nvidia-cudnn-cu13");
  expect(said("libcuda.so.1: cannot open shared object file: No such file or directory").hint).toContain("driver");
});

test("a folder from which nothing may run is a matter of the system", () => {
  expect(said("failed to map segment from shared object")).toMatchObject({
    code: 5,
    hint: expect.stringContaining("XDG_CACHE_HOME"),
  });
});

test("other messages of the loader are passed on", () => {
  expect(said("invalid ELF header").message).toContain("invalid ELF header");
  expect(missingLibrary("invalid ELF header")).toBeNull();
});

test("a file that is no library is an error in words", () => {
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-open-"));
  try {
    writeFileSync(join(folder, "libmlxlm.so"), "not a library");
    expect(() => openLibrary(join(folder, "libmlxlm.so"), {})).toThrow("the native library can't be loaded");
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("NVIDIA's wheels are found in an environment, a named folder first", () => {
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-cuda-"));
  try {
    const wheels = join(folder, "venv/lib/python3.12/site-packages/nvidia");
    const named = join(folder, "named");
    for (const lib of [join(wheels, "cudnn/lib"), join(wheels, "cu13/lib"), join(wheels, "cu13/include"), named]) {
      mkdirSync(lib, { recursive: true });
    }
    writeFileSync(join(wheels, "cudnn/lib/libcudnn.so.9"), "");
    writeFileSync(join(wheels, "cu13/include/cuda_fp16.h"), "");
    const env = { VIRTUAL_ENV: join(folder, "venv"), MLXLM_CUDA_LIBRARIES: named, CUDA_HOME: join(folder, "none") };
    expect(cudaLibraryPath("libcudnn.so.9", env)).toBe(join(wheels, "cudnn/lib/libcudnn.so.9"));
    expect(cudaHeaders(env)).toBe(join(wheels, "cu13"));
    writeFileSync(join(named, "libcudnn.so.9"), "");
    expect(cudaLibraryPath("libcudnn.so.9", env)).toBe(join(named, "libcudnn.so.9"));
    // The python3 on PATH.
    mkdirSync(join(folder, "venv/bin"));
    writeFileSync(join(folder, "venv/bin/python3"), "");
    expect(cudaLibraryPath("libcudnn.so.9", { PATH: `/bin:${join(folder, "venv/bin")}` })).toBe(
      join(wheels, "cudnn/lib/libcudnn.so.9"),
    );
    expect(cudaLibraryPath("libnosuch.so.9", env)).toBeNull();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.if(process.platform === "linux")(
  "a library outside the loader's paths is loaded by its path, and what it needs first",
  () => {
    const folder = mkdtempSync(join(tmpdir(), "mlxlm-preload-"));
    const hidden = join(folder, "hidden");
    const compile = (name: string, source: string, needed: readonly string[]) => {
      writeFileSync(join(folder, "source.c"), source);
      const command = [
        "cc",
        "-shared",
        "-fPIC",
        `-Wl,-soname,${name}`,
        "-o",
        name,
        join(folder, "source.c"),
        ...needed,
      ];
      expect(Bun.spawnSync(command, { cwd: hidden }).exitCode).toBe(0);
    };
    const before = process.env.MLXLM_CUDA_LIBRARIES;
    try {
      mkdirSync(hidden);
      compile("libdeep.so.1", "int deep(void) { return 40; }", []);
      compile("libnear.so.2", "int deep(void); int near_(void) { return deep() + 1; }", ["./libdeep.so.1"]);
      compile("libmain.so", "int near_(void); int answer(void) { return near_() + 1; }", ["./libnear.so.2"]);
      const open = () => openLibrary(join(hidden, "libmain.so"), { answer: { args: [], returns: "i32" } });
      expect(open).toThrow("libnear.so.2");
      process.env.MLXLM_CUDA_LIBRARIES = hidden;
      expect(open().answer()).toBe(42);
    } finally {
      if (before === undefined) delete process.env.MLXLM_CUDA_LIBRARIES;
      else process.env.MLXLM_CUDA_LIBRARIES = before;
      rmSync(folder, { recursive: true });
    }
  },
);
