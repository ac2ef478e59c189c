/** Starts the ranks of a group: where, with what, and by which backend. */
import { randomBytes } from "node:crypto";
import { statSync } from "node:fs";
import { availableParallelism, machine, platform } from "node:os";
import { resolve } from "node:path";
import { bundles } from "../../embedded-files";
import { environment } from "../../environment";
import { ExitCode, UserError } from "../../errors";
import { isLaunched } from "../../mlx/group-environment";
import { type Output, passOn } from "../output";
import { wasGiven } from "../parse";
import { type Host, type Hosts, isHere, listedHosts, readHostfile } from "./hosts";
import { mpiWords } from "./mpi";
import { type Backend, backends, graphOperationsFor, type PlannedRank, plan } from "./plan";
import { freePorts } from "./ports";
import { hashOf, placeExecutable } from "./ssh";
import { supervise } from "./supervise";

export interface LaunchFlags {
  command: readonly string[];
  hosts: string;
  repeatHosts: number;
  hostfile?: string;
  backend?: Backend;
  env: readonly string[];
  mpiArg: readonly string[];
  connectionsPerIp: number;
  startingPort?: number;
  ncclPort?: number;
  cwd?: string;
  executable?: string;
  check: boolean;
  verbose: boolean;
  json: boolean;
  debug: boolean;
  device?: string;
}

const mostRanks = 1024;

/** Runs the command on all ranks and returns its exit code. @throws UserError for hosts that can't be used */
export async function launch(flags: LaunchFlags, out: Output, signal?: AbortSignal): Promise<number> {
  if (flags.check && isLaunched()) {
    const { checkAsRank } = await import("./check");
    checkAsRank(out);
    return ExitCode.ok;
  }
  if (flags.command.length === 0 && !flags.check) {
    throw new UserError("launch needs a command that the ranks run", {
      code: ExitCode.usage,
      hint: "For example: mlxlm launch -n 2 generate --model demo",
    });
  }
  if (flags.hostfile !== undefined && wasGiven(flags, "hosts")) {
    throw new UserError("--hosts and --hostfile both say where ranks run", {
      code: ExitCode.usage,
      hint: "Leave one out, or write all hosts into the hostfile.",
    });
  }
  const command = withGlobalFlags(flags.check ? ["launch", "--check"] : flags.command, flags);
  const named: Hosts = flags.hostfile === undefined ? listedHosts(flags.hosts) : await readHostfile(flags.hostfile);
  const hosts = named.hosts.flatMap((host) => Array.from({ length: flags.repeatHosts }, () => host));
  if (hosts.length > mostRanks) {
    throw new UserError(`${hosts.length} ranks are more than the ${mostRanks} that launch starts`, {
      code: ExitCode.usage,
      hint: "Name fewer hosts, or a lower -n.",
    });
  }
  const backend = flags.backend ?? backendNamed(named.backend) ?? (await usualBackend(hosts));
  const own = Object.fromEntries([...named.envs, ...flags.env].map(variable));
  const cwd = flags.cwd === undefined ? process.cwd() : resolve(flags.cwd);
  if (hosts.some(isHere) && !statSync(cwd, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UserError(`--cwd ${flags.cwd} is no folder of this machine`, {
      code: ExitCode.notFound,
      hint: "Make it, or leave out --cwd.",
    });
  }
  const note = (line: string) => out.warn(line);
  const self = bundles.native ? [process.execPath] : [process.execPath, Bun.main];
  if (backend === "mpi") {
    const words = mpiWords(hosts, [...self, ...command], { env: own, args: flags.mpiArg });
    if (Bun.which(words[0]!) === null) {
      throw new UserError(`the backend mpi needs ${words[0]}, which is not on this machine`, {
        code: ExitCode.notFound,
        hint: "Install Open MPI, or leave out --backend mpi.",
      });
    }
    const { exited } = Bun.spawn(words, { cwd, stdin: "inherit", stdout: "inherit", stderr: "inherit" });
    return await exited;
  }

  const ranks = plan(hosts, {
    ...flags,
    backend,
    gpus: environment("CUDA_VISIBLE_DEVICES"),
    ncclNetwork: environment("NCCL_SOCKET_IFNAME"),
    graphOperations: environment("MLX_MAX_OPS_PER_BUFFER") ?? graphOperationsFor(command),
    key: randomBytes(16).toString("hex"),
    cores: availableParallelism(),
    freePorts,
  }).map((rank) => ({ ...rank, env: { ...rank.env, ...own } }));
  const theirs = await executables(hosts, flags.executable, note);
  return await supervise(ranks, {
    commandOf: ({ host }: PlannedRank) => [...(isHere(host) ? self : [theirs.get(host.ssh)!]), ...command],
    cwd,
    signal,
    line: passOn,
    note,
    onStart: ({ rank, host }, pid) => {
      if (flags.verbose) out.info(`rank ${rank} on ${host.ssh} by ${backend}: process ${pid}`);
    },
  });
}

/** The command with the flags of all commands that stand ahead of it: they mean what the ranks do. */
function withGlobalFlags([name, ...words]: readonly string[], { json, debug, device }: LaunchFlags): string[] {
  const passed = [
    ...(json ? ["--json"] : []),
    ...(debug ? ["--debug"] : []),
    ...(device ? [`--device=${device}`] : []),
  ];
  const isThere = (flag: string) => words.some((word) => word.split("=", 1)[0] === flag.split("=", 1)[0]);
  return [name!, ...passed.filter((flag) => !isThere(flag)), ...words];
}

/** The backend that a hostfile names. @throws UserError where there is no such one */
function backendNamed(name: string | undefined): Backend | undefined {
  const known = backends.find((one) => one === name);
  if (name === undefined || known) return known;
  throw new UserError(`the hostfile names the backend ${JSON.stringify(name)}, which is none`, {
    code: ExitCode.usage,
    hint: `There are ${backends.join(", ")}.`,
  });
}

/** NCCL where each rank can have an NVIDIA GPU to itself, as far as this machine shows. */
async function usualBackend(hosts: readonly Host[]): Promise<Backend> {
  const mx = await import("../../mlx");
  if (!mx.isAvailable("cuda") || !mx.distributed.isAvailable("nccl")) return "tcp";
  return mx.deviceCount("gpu") >= hosts.filter(isHere).length ? "nccl" : "tcp";
}

/** @throws UserError for what is no NAME=VALUE */
function variable(text: string): [name: string, value: string] {
  const [, name, value] = /^(\w+)=(.*)$/s.exec(text) ?? [];
  if (name === undefined || value === undefined) {
    throw new UserError(`--env ${JSON.stringify(text)} is not NAME=VALUE`, {
      code: ExitCode.usage,
      hint: 'The same holds for "envs" of a hostfile. For example: --env MLXLM_THREADS=4',
    });
  }
  return [name, value];
}

/** The executable on each of the other hosts, by its name; copied where it is missing. */
async function executables(
  hosts: readonly Host[],
  installed: string | undefined,
  note: (line: string) => void,
): Promise<ReadonlyMap<string, string>> {
  const others = [...new Set(hosts.filter((host) => !isHere(host)).map(({ ssh }) => ssh))];
  if (installed !== undefined || others.length === 0) return new Map(others.map((host) => [host, installed ?? ""]));
  if (!bundles.native) {
    throw new UserError("this mlxlm runs from its sources, which cannot be copied to other hosts", {
      hint: "Name the mlxlm that is installed there: --executable PATH. Or build one: bun run build",
    });
  }
  const path = process.execPath;
  const executable = { path, sha256: await hashOf(path), system: systemName() };
  return new Map(
    await Promise.all(others.map(async (host) => [host, await placeExecutable(host, executable, note)] as const)),
  );
}

/** As `uname -sm` says it. */
function systemName(): string {
  return `${platform() === "darwin" ? "Darwin" : "Linux"} ${machine()}`;
}
