/** The program, the processor, the system and its memory. */
import {
  allowedWords,
  environment,
  listedVariables,
  unknownVariables,
  type VariableName,
  variables,
  wrongVariables,
} from "../../environment";
import { UserError } from "../../errors";
import { type Found, fail, gb, ok, warn } from "./finding";
import type { Engine, Probes } from "./probes";

/** MLX's Linux libraries are built against it. */
const leastGlibc = [2, 35] as const;
const leastMacos = 14;

/** Below it, only the smallest models run. */
const littleMemory = 2e9;

/** A variable that native code reads. */
const said = (env: Probes["env"], name: VariableName) => environment(name, env);

/** @param engine what the native library says, or why it says nothing */
export function programFindings(probes: Probes, version: string, engine: Engine | Error): Found[] {
  const { build, bun, executable } = probes;
  const what = build === null ? "from source" : `build ${build}`;
  const program = ok("version", `mlxlm ${version}, ${what}, Bun ${bun}, ${executable}`);
  if (!(engine instanceof Error)) return [program, ok("native library", librarySaid(probes))];
  const hint = engine instanceof UserError ? engine.hint : undefined;
  return [program, fail("native library", engine.message, hint ?? "Download mlxlm again, or build it: bun run build")];
}

function librarySaid(probes: Probes): string {
  return `loads: ${probes.nativeLibrary()}`;
}

/** The most that our kernels use of a processor, as vendor/mlx/src/cpu/isa.cpp tells it. */
export function instructionSet({ platform, arch, env, read }: Probes): string | null {
  if (arch !== "x64" || platform !== "linux") return null;
  const flags = new Set(
    /^flags\s*:(.*)$/m
      .exec(read("/proc/cpuinfo") ?? "")?.[1]
      ?.trim()
      .split(/\s+/),
  );
  const has = (...names: string[]) => names.every((name) => flags.has(name));
  const sets = ["plain"];
  if (has("avx2", "fma", "f16c")) sets.push("avx2");
  if (sets.length === 2 && has("avx512f", "avx512bw", "avx512dq", "avx512vl")) sets.push("avx512");
  if (sets.length === 3 && has("avx512_bf16")) sets.push("avx512_bf16");
  const wanted = said(env, "MLXLM_CPU_ISA");
  return wanted !== undefined && sets.includes(wanted) ? wanted : sets.at(-1)!;
}

export function threads({ cores, env }: Probes): number {
  return Number(said(env, "MLXLM_THREADS") ?? cores.usable);
}

export function processorFindings(probes: Probes): Found[] {
  const { platform, arch, processor, cores, env } = probes;
  const set = instructionSet(probes);
  const count = threads(probes);
  const found: Found[] = [];
  if (platform === "darwin" && arch !== "arm64") {
    found.push(
      fail("processor", `${processor} (${arch})`, "MLX needs Apple silicon, and a program that is built for it."),
    );
  } else if (set === "plain") {
    const why =
      said(env, "MLXLM_CPU_ISA") === "plain"
        ? "Unset MLXLM_CPU_ISA."
        : "A processor with AVX2 is several times faster.";
    found.push(warn("processor", `${processor}: neither AVX2 nor AVX-512 is used`, why));
  } else {
    found.push(ok("processor", set === null ? `${processor} (${arch})` : `${processor}, ${set}`));
  }
  if (said(env, "MLXLM_CPU_KERNELS") === "0") {
    found.push(
      warn("kernels", "mlxlm's CPU kernels are off", "Unset MLXLM_CPU_KERNELS, unless you want Python's bits."),
    );
  }
  const of = `${count} of ${cores.usable} cores`;
  const more = cores.all > cores.usable ? ` (the machine has ${cores.all})` : "";
  const few = count < cores.usable;
  found.push(
    few || count > cores.usable
      ? warn("threads", `${of}${more}`, "MLXLM_THREADS sets that; unset it to use each core once.")
      : ok("threads", `${of}${more}`),
  );
  return found;
}

export function systemFindings(probes: Probes): Found[] {
  const { platform, kernel, run } = probes;
  if (platform === "darwin") {
    const version = run(["sw_vers", "-productVersion"])?.trim() ?? "unknown";
    const isOld = Number.parseInt(version, 10) < leastMacos;
    return [isOld ? fail("macOS", version, `MLX needs macOS ${leastMacos} or newer.`) : ok("macOS", version)];
  }
  const version = glibc(probes);
  const needed = leastGlibc.join(".");
  if (version === null) {
    const hint = `MLX needs glibc ${needed} or newer: Alpine and others with musl have none.`;
    return [fail("glibc", `none found (Linux ${kernel})`, hint)];
  }
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const isOld = major < leastGlibc[0] || (major === leastGlibc[0] && minor < leastGlibc[1]);
  const text = `${version}, Linux ${kernel}`;
  return [
    isOld
      ? fail(
          "glibc",
          text,
          `MLX needs ${needed} or newer: Ubuntu 22.04, Debian 12, Fedora 36, or a container of those.`,
        )
      : ok("glibc", text),
  ];
}

function glibc({ run }: Probes): string | null {
  return /(\d+\.\d+)/.exec(run(["getconf", "GNU_LIBC_VERSION"]) ?? "")?.[1] ?? null;
}

/** The least limit of the process's control groups, in bytes; null where there is none. */
export function groupLimit({ platform, memory, read }: Probes): number | null {
  if (platform !== "linux") return null;
  const limits: number[] = [];
  const take = (path: string) => {
    const bytes = Number.parseInt(read(path) ?? "", 10);
    if (bytes > 0 && bytes < memory) limits.push(bytes);
  };
  const groups = (read("/proc/self/cgroup") ?? "").split("\n").map((line) => line.split(":"));
  for (const [, controllers, path = ""] of groups) {
    // Version 2 has one group without controllers, where each group above limits too.
    if (controllers === "") {
      for (let at = path; ; at = at.slice(0, at.lastIndexOf("/"))) {
        take(`/sys/fs/cgroup${at === "/" ? "" : at}/memory.max`);
        if (at.length <= 1) break;
      }
    }
    if (controllers?.split(",").includes("memory")) {
      // A container sees its own group at the root, under a path that only the host has.
      for (const at of [path, ""]) take(`/sys/fs/cgroup/memory${at}/memory.limit_in_bytes`);
    }
  }
  return limits.length > 0 ? Math.min(...limits) : null;
}

export function memoryFindings(probes: Probes, engine: Engine | Error): Found[] {
  const { memory, platform, read } = probes;
  const limit = groupLimit(probes);
  const has = `${gb(memory)} in the machine${limit === null ? "" : `, ${gb(limit)} allowed by the control group`}`;
  const found: Found[] = [];
  if (engine instanceof Error) found.push(ok("memory", has));
  else if (engine.available < littleMemory) {
    found.push(
      warn("memory", `${has}, ${gb(engine.available)} free`, "End other programs, or raise the container's limit."),
    );
  } else found.push(ok("memory", `${has}, ${gb(engine.available)} free with swap`));
  const addresses = /^Max address space\s+(\d+)/m.exec((platform === "linux" && read("/proc/self/limits")) || "")?.[1];
  if (addresses !== undefined) {
    found.push(warn("addresses", `limited to ${gb(Number(addresses))}`, "Native calls need more: ulimit -v unlimited"));
  }
  return found;
}

/** Values that nobody else should see. */
const secret = /TOKEN$/;

export function environmentFindings({ env }: Probes): Found[] {
  const wrong = wrongVariables(env);
  const found = [
    ...wrong.map((name) => {
      const must = `${JSON.stringify(env[name])}, but must be ${allowedWords(variables[name])}`;
      return fail(name, must, `Correct it, or unset ${name}.`);
    }),
    ...unknownVariables(env).map((problem) => warn("unknown", problem, "Correct its name, or unset it.")),
  ];
  // What every system sets says nothing.
  const usual = ["HOME", "PATH", "TERM", "TMPDIR"];
  for (const [name] of listedVariables()) {
    const value = environment(name, env);
    if (value === undefined || usual.includes(name) || wrong.includes(name)) continue;
    found.push(ok(name, secret.test(name) ? "set (not shown)" : value));
  }
  return found.length > 0 ? found : [ok("variables", "none of those that mlxlm reads is set")];
}
