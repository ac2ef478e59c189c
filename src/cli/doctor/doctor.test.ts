/** doctor on machines that are not this one. */
import { describe, expect, test } from "bun:test";
import { homedir } from "node:os";
import { UserError } from "../../errors";
import { type Diagnosis, diagnose } from ".";
import type { FolderFacts, Probes } from "./probes";
import { report } from "./report";

const lib = "/opt/native/lib/libmlxlm.so";
const good: FolderFacts = { exists: true, writable: true, free: 80e9, mode: 0o40700 };
const none: FolderFacts = { ...good, exists: false };
const cpuinfo = "flags\t\t: fpu avx2 fma f16c avx512f avx512bw avx512dq avx512vl\n";
const token = `${homedir()}/.cache/huggingface/token`;

interface World extends Partial<Omit<Probes, "read" | "run" | "folder">> {
  files?: Record<string, string>;
  programs?: Record<string, string>;
  folders?: Record<string, Partial<FolderFacts>>;
}

/** A Linux machine on which all is well, but for what is said. */
function machine({ files = {}, programs = {}, folders = {}, ...others }: World = {}): Probes {
  const read: Record<string, string> = { "/proc/cpuinfo": cpuinfo, ...files };
  const run: Record<string, string> = { getconf: "glibc 2.39\n", ...programs };
  return {
    platform: "linux",
    arch: "x64",
    env: {},
    build: "0123456789abcdef",
    bun: "1.4.5",
    executable: "/usr/bin/mlxlm",
    memory: 32e9,
    processor: "A processor",
    cores: { all: 8, usable: 8 },
    kernel: "6.1",
    read: (path) => read[path] ?? null,
    folder: (path) => (folders[path] ? { ...good, ...folders[path] } : /^\/opt\/|\.so\./.test(path) ? none : good),
    list: () => [],
    run: ([name]) => run[name!] ?? null,
    ask: async () => ({ status: 200, milliseconds: 41.6 }),
    nativeLibrary: () => lib,
    engine: async () => ({ available: 20e9, gpus: [] }),
    ...others,
  };
}

const look = (world: World = {}) => diagnose(machine(world), "1.2.3");
const problems = ({ findings }: Diagnosis) =>
  findings.filter(({ status }) => status !== "ok").map(({ name, status, text, hint }) => [status, name, text, hint]);

describe("doctor", () => {
  test("a machine on which all is well", async () => {
    const found = await look();
    expect(problems(found)).toEqual([]);
    expect(found.ok).toBe(true);
    expect(found.facts).toMatchObject({
      backend: "cpu",
      instruction_set: "avx512",
      threads: 8,
      memory_limit: null,
      hub: { endpoint: "https://huggingface.co" },
    });
    expect(report(found.findings)).toContain("  ok   network        https://huggingface.co answers in 42 ms\n");
    expect(report(found.findings)).toEndWith("\nAll is well.\n");
  });

  test("an old glibc, none, and an old macOS", async () => {
    expect(problems(await look({ programs: { getconf: "glibc 2.31" } }))).toEqual([
      ["fail", "glibc", "2.31, Linux 6.1", expect.stringContaining("2.35 or newer: Ubuntu 22.04")],
    ]);
    expect(problems(await look({ programs: { getconf: "" } }))[0]![3]).toContain("musl");
    const mac = {
      platform: "darwin",
      arch: "arm64",
      programs: { sw_vers: "13.6\n" },
      folders: { "/opt/native/lib/mlx.metallib": {} },
    };
    expect(problems(await look(mac)).map(([, name, text]) => [name, text])).toEqual([
      ["macOS", "13.6"],
      ["GPU", "Metal finds none: the CPU computes"],
    ]);
    expect((await look({ ...mac, arch: "x64" })).findings).toContainEqual(
      expect.objectContaining({ name: "processor", status: "fail" }),
    );
  });

  test("a processor without AVX2, and settings that slow it down", async () => {
    const plain = await look({ files: { "/proc/cpuinfo": "flags : fpu sse4_2\n" } });
    expect(problems(plain).map(([status, name]) => [status, name])).toEqual([["warn", "processor"]]);
    const env = { MLXLM_CPU_ISA: "plain", MLXLM_THREADS: "2", MLXLM_CPU_KERNELS: "0" };
    const found = await look({ env });
    expect(problems(found).map(([, name, , hint]) => [name, hint])).toEqual([
      ["processor", "Unset MLXLM_CPU_ISA."],
      ["kernels", expect.stringContaining("MLXLM_CPU_KERNELS")],
      ["threads", expect.stringContaining("MLXLM_THREADS")],
    ]);
    expect(found.facts).toMatchObject({ instruction_set: "plain", threads: 2 });
  });

  test.each([
    [
      "version 2",
      {
        "/proc/self/cgroup": "0::/a/b\n",
        "/sys/fs/cgroup/a/b/memory.max": "max",
        "/sys/fs/cgroup/a/memory.max": "4000000000\n",
      },
    ],
    [
      "version 1",
      { "/proc/self/cgroup": "5:memory:/docker/x\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes": "4000000000" },
    ],
  ])("the memory of a control group, %s", async (_, files) => {
    const found = await look({ files, engine: async () => ({ available: 1e9, gpus: [] }) });
    expect(found.facts.memory_limit).toBe(4e9);
    expect(problems(found)).toEqual([
      [
        "warn",
        "memory",
        "32.0 GB in the machine, 4.0 GB allowed by the control group, 1.0 GB free",
        expect.any(String),
      ],
    ]);
  });

  test("a limit of addresses", async () => {
    const files = {
      "/proc/self/limits": "Max address space         8000000000           unlimited            bytes\n",
    };
    expect(problems(await look({ files }))).toEqual([["warn", "addresses", "limited to 8.0 GB", expect.any(String)]]);
  });

  test("a native library that does not load", async () => {
    const engine = async () => {
      throw new UserError("the native library can't be loaded: no such file", { hint: "Do this." });
    };
    const found = await look({ engine });
    expect(problems(found)).toEqual([["fail", "native library", expect.stringContaining("no such file"), "Do this."]]);
    expect(found.ok).toBe(false);
    expect(found.facts).toMatchObject({ memory_available: null, gpus: [] });
  });

  describe("CUDA", () => {
    const folders = { "/opt/native/include": {} };
    const driver = (version: string) => ({
      "/proc/driver/nvidia/version": `NVRM version: NVIDIA UNIX x86_64 Kernel Module  ${version}  Tue\nGCC version: 13\n`,
    });
    const libraries = [
      "libcuda.so.1",
      "libcublasLt.so.13",
      "libcudnn.so.9",
      "libcufft.so.12",
      "libcusolver.so.12",
      "libnvrtc.so.13",
      "libnccl.so.2",
    ];
    const ldconfig = libraries.map((name) => `\t${name} (libc6,x86-64) => /usr/lib/${name}\n`).join("");
    const gpus = [{ device_name: "NVIDIA H200", total_memory: 150_000_000_000 }];

    test("all there", async () => {
      const found = await look({
        folders,
        files: driver("580.65.06"),
        programs: { ldconfig },
        engine: async () => ({ available: 20e9, gpus }),
      });
      expect(problems(found)).toEqual([]);
      expect(found.findings).toContainEqual(expect.objectContaining({ name: "GPU", text: "NVIDIA H200, 150.0 GB" }));
      expect(found.facts).toMatchObject({ backend: "cuda", cuda: { driver: "580.65.06" } });
    });

    test("each missing library comes with the command that gets it; those of wheels are found", async () => {
      const wheel = "/venv/lib/python3.12/site-packages/nvidia/cudnn/lib";
      const found = await look({
        env: { VIRTUAL_ENV: "/venv" },
        folders: { ...folders, [`${wheel}/libcudnn.so.9`]: {} },
        list: (path) => (path === "/venv/lib" ? ["python3.12"] : path.endsWith("/nvidia") ? ["cudnn"] : []),
        files: driver("580.65.06"),
        programs: { ldconfig: ldconfig.replace(/.*(cudnn|cufft|nccl).*\n/g, "") },
      });
      expect(problems(found).filter(([status]) => status === "fail")).toEqual([
        ["fail", "libcufft.so.12", "is not found", 'pip install "nvidia-cufft==12.*"'],
        ["fail", "libnccl.so.2", "is not found", 'pip install "nvidia-nccl-cu13"'],
      ]);
      expect(found.facts).toMatchObject({ cuda: { libraries: { "libcudnn.so.9": `${wheel}/libcudnn.so.9` } } });
    });

    test("the version of the open driver too", async () => {
      const line =
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.51.03  Release Build  (builder)  Sun Jul 27\n";
      const found = problems(
        await look({ folders, files: { "/proc/driver/nvidia/version": line }, programs: { ldconfig } }),
      );
      expect(found[0]!.slice(0, 3)).toEqual(["fail", "driver", "575.51.03 is too old for CUDA 13"]);
    });

    test("no driver, and an old one", async () => {
      const absent = problems(await look({ folders, programs: { ldconfig } }));
      expect(absent[0]).toEqual([
        "fail",
        "driver",
        "there is no NVIDIA driver",
        expect.stringContaining("apt install nvidia-driver-580"),
      ]);
      const old = problems(await look({ folders, files: driver("535.183.01"), programs: { ldconfig } }));
      expect(old[0]!.slice(0, 3)).toEqual(["fail", "driver", "535.183.01 is too old for CUDA 13"]);
    });

    test("a GPU beside a build for the CPU", async () => {
      expect(problems(await look({ files: driver("580.1") }))).toEqual([
        ["warn", "GPU", expect.stringContaining("this build computes on the CPU"), expect.stringContaining("CUDA 13")],
      ]);
    });
  });

  test("folders that cannot be written, full disks and noexec", async () => {
    const hub = `${homedir()}/.cache/huggingface/hub`;
    const env = { HF_HUB_CACHE: "/mnt/hub" };
    expect(problems(await look({ env, folders: { "/mnt/hub": { writable: false } } }))[0]!.slice(0, 2)).toEqual([
      "warn",
      "model cache",
    ]);
    expect(problems(await look({ folders: { [hub]: { free: 1e9 } } }))).toEqual([
      ["warn", "model cache", `${hub}, 1.0 GB free on its disk`, expect.stringContaining("HF_HUB_CACHE")],
    ]);
    const files = {
      "/proc/self/mounts": "/dev/a / ext4 rw 0 0\n/dev/b /root ext4 rw,noexec 0 0\n/dev/c /home ext4 rw,noexec 0 0\n",
    };
    expect(problems(await look({ files })).map(([status, name]) => [status, name])).toEqual([
      ["warn", "library cache"],
    ]);
    // A checkout unpacks nothing.
    expect(problems(await look({ files, build: null }))).toEqual([]);
  });

  describe("the hub", () => {
    test("a token that it does not know, or that others can read", async () => {
      const refused = await look({
        env: { HF_TOKEN: "hf_secret" },
        ask: async () => ({ status: 401, milliseconds: 9 }),
      });
      expect(problems(refused)).toEqual([
        ["fail", "token", "the hub does not know that of HF_TOKEN", expect.stringContaining("settings/tokens")],
      ]);
      expect(JSON.stringify(refused)).not.toContain("hf_secret");
      const open = await look({ files: { [token]: "hf_file\n" }, folders: { [token]: { mode: 0o100644 } } });
      expect(problems(open)).toEqual([["warn", "token", `others can read ${token}`, `chmod 600 ${token}`]]);
    });

    test("is asked with the token, at its address", async () => {
      const asked: unknown[] = [];
      const ask: Probes["ask"] = async (...all) => {
        asked.push(all);
        return { status: 200, milliseconds: 1 };
      };
      await look({ env: { HF_TOKEN: "hf_x", HF_ENDPOINT: "https://hub.example.com/" }, ask });
      await look({ ask });
      expect(asked).toEqual([
        ["https://hub.example.com/api/whoami-v2", { Authorization: "Bearer hf_x" }],
        ["https://huggingface.co/", undefined],
      ]);
    });

    test("is not asked offline; no answer is a warning", async () => {
      const ask = () => Promise.reject(new Error("asked"));
      const offline = await look({ env: { HF_HUB_OFFLINE: "1" }, ask });
      expect(problems(offline)).toEqual([]);
      expect(offline.facts.hub).toBeNull();
      const timeout = () => Promise.reject(new DOMException("The operation timed out.", "TimeoutError"));
      const [late] = problems(await look({ ask: timeout }));
      expect(late!.slice(0, 3)).toEqual(["warn", "network", "https://huggingface.co: it does not answer within 3 s"]);
      const [broken] = problems(await look({ ask: async () => ({ status: 503, milliseconds: 1 }) }));
      expect(broken![2]).toBe("https://huggingface.co: it answers 503");
    });
  });

  test("variables: wrong ones fail, unknown ones warn, secrets are not shown", async () => {
    const env = {
      MLXLM_CPU_ISA: "axv",
      MLXLM_TREADS: "2",
      HF_TOKEN: "hf_secret",
      NO_COLOR: "1",
      HF_ENDPOINT: "ftp://x",
    };
    const found = await look({ env });
    const inGroup = found.findings.filter(({ group }) => group === "Environment");
    expect(inGroup.map(({ status, name, text }) => [status, name, text])).toEqual([
      ["fail", "MLXLM_CPU_ISA", '"axv", but must be plain, avx2, avx512 or avx512_bf16'],
      ["warn", "unknown", expect.stringContaining("did you mean MLXLM_THREADS?")],
      ["ok", "HF_TOKEN", "set (not shown)"],
      ["ok", "HF_ENDPOINT", "ftp://x"],
      ["ok", "NO_COLOR", "1"],
    ]);
    expect(JSON.stringify(found)).not.toContain("hf_secret");
    expect(problems(found)).toContainEqual([
      "warn",
      "network",
      expect.stringContaining("HF_ENDPOINT is no address"),
      expect.any(String),
    ]);
    expect(report(found.findings)).toMatch(/\n1 fault and \d+ warnings: see the arrows\.\n$/);
  });
});
