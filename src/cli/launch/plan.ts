/** What each rank is started with: the environment that its backend reads. */
import { ExitCode, UserError } from "../../errors";
import { type Host, isHere, isLoopback } from "./hosts";

export const backends = ["tcp", "ring", "nccl", "jaccl", "jaccl-ring", "mpi"] as const;

export type Backend = (typeof backends)[number];

export interface PlanOptions {
  backend: Backend;
  /** The first port that ranks listen at; for what stays on this machine, free ones where absent. */
  startingPort?: number;
  connectionsPerIp: number;
  /** Where the first rank waits for the others with NCCL; for what stays on this machine, a free one where absent. */
  ncclPort?: number;
  /** The GPUs of this machine that ranks may have, as CUDA_VISIBLE_DEVICES lists them; all where absent. */
  gpus?: string;
  /** The network that NCCL is told to use by the user. */
  ncclNetwork?: string;
  /** After how many operations MLX launches a CUDA graph; its own number where absent. */
  graphOperations?: string;
  /** What members say to each other. */
  key: string;
  verbose: boolean;
  /** Cores of this machine. */
  cores: number;
  /** Ports that nobody listens at. */
  freePorts: (count: number) => number[];
}

export interface PlannedRank {
  rank: number;
  host: Host;
  env: Record<string, string>;
  /** Variables that name a file with this text. */
  files: Record<string, string>;
}

const usualPort = 32323;
const highestPort = 65_535;
const usualNcclPort = 12345;

/** @throws UserError where a host lacks what the backend needs to know of it */
export function plan(hosts: readonly Host[], options: PlanOptions): PlannedRank[] {
  const { backend, key, cores } = options;
  const shared = hosts.filter(isHere).length;
  const connection = connectionOf(hosts, options);
  return hosts.map((host, rank) => ({
    rank,
    host,
    env: {
      MLX_RANK: `${rank}`,
      MLXLM_DISTRIBUTED: backend === "jaccl-ring" ? "jaccl" : backend,
      MLXLM_GROUP_KEY: key,
      // Ranks of one machine share its cores.
      ...(isHere(host) && shared > 1 && { MLXLM_THREADS: `${Math.max(1, Math.floor(cores / shared))}` }),
      ...connection.env,
      ...(backend === "nccl" && { CUDA_VISIBLE_DEVICES: gpuOf(hosts, rank, options) }),
    },
    files: connection.files,
  }));
}

/**
 * After how many operations MLX launches a CUDA graph on ranks of this command. Large graphs differ from prompt to prompt, and while one rank
 * makes one anew the others wait. Small graphs are alike. Training is slower with them.
 */
export function graphOperationsFor(command: readonly string[]): string | undefined {
  return command[0] === "lora" || command[0] === "dwq" ? undefined : "20";
}

/** Each rank of a machine has a GPU to itself. @throws UserError where CUDA_VISIBLE_DEVICES lists too few */
function gpuOf(hosts: readonly Host[], rank: number, { gpus }: PlanOptions): string {
  const host = hosts[rank]!;
  const isSame = (other: Host) => other.ssh === host.ssh || (isHere(other) && isHere(host));
  const place = hosts.slice(0, rank).filter(isSame).length;
  if (gpus === undefined || !isHere(host)) return `${place}`;
  const gpu = gpus.split(",")[place]?.trim();
  if (gpu) return gpu;
  throw refused(
    `CUDA_VISIBLE_DEVICES=${gpus} has no GPU for each of the ${hosts.filter(isSame).length} ranks of this machine`,
    "Start fewer ranks, or let them share a GPU: --backend tcp",
  );
}

interface Connection {
  env: Record<string, string>;
  files: Record<string, string>;
}

function connectionOf(hosts: readonly Host[], options: PlanOptions): Connection {
  const { backend, verbose } = options;
  switch (backend) {
    case "tcp":
    case "ring":
      return {
        env: verbose && backend === "ring" ? { MLX_RING_VERBOSE: "1" } : {},
        files: { MLX_HOSTFILE: JSON.stringify(addressesOf(hosts, options)) },
      };
    case "nccl":
      return {
        env: {
          NCCL_HOST_IP: firstAddress(hosts, backend),
          NCCL_PORT: `${options.ncclPort ?? (hosts.every(isHere) ? options.freePorts(1)[0] : usualNcclPort)}`,
          MLX_WORLD_SIZE: `${hosts.length}`,
          ...(hosts.length > 1 &&
            options.graphOperations !== undefined && { MLX_MAX_OPS_PER_BUFFER: options.graphOperations }),
          // NCCL would listen on the network too.
          ...(options.ncclNetwork === undefined && hosts.every(isLoopback) && { NCCL_SOCKET_IFNAME: "=lo" }),
          ...(verbose && { NCCL_DEBUG: "INFO" }),
        },
        files: {},
      };
    case "jaccl":
    case "jaccl-ring":
      return {
        env: {
          MLX_JACCL_COORDINATOR: `${firstAddress(hosts, backend)}:${options.startingPort ?? usualPort}`,
          ...(backend === "jaccl-ring" && { MLX_JACCL_RING: "1" }),
        },
        files: { MLX_IBV_DEVICES: JSON.stringify(devicesOf(hosts, backend)) },
      };
    case "mpi":
      return { env: {}, files: {} };
  }
}

/** "IP:PORT" of each rank, for each connection. */
function addressesOf(hosts: readonly Host[], { backend, startingPort, connectionsPerIp, freePorts }: PlanOptions) {
  const without = hosts.find(({ ips }) => ips.length === 0);
  if (without) {
    throw refused(`the backend ${backend} needs the IP of ${without.ssh}`, 'Name IPs, or write "ips" into a hostfile.');
  }
  const counts = hosts.map(({ ips }) => ips.length * connectionsPerIp);
  const total = counts.reduce((a, b) => a + b, 0);
  const ports =
    startingPort === undefined && hosts.every(isHere) ? freePorts(total) : portsFrom(startingPort ?? usualPort, total);
  return hosts.map(({ ips }) =>
    ips.flatMap((ip) =>
      Array.from({ length: connectionsPerIp }, () => `${ip.includes(":") ? `[${ip}]` : ip}:${ports.shift()}`),
    ),
  );
}

function portsFrom(first: number, count: number): number[] {
  if (first + count - 1 > highestPort) {
    throw refused(`${count} ports from ${first} on go past ${highestPort}`, "Take a lower --starting-port.");
  }
  return Array.from({ length: count }, (_, i) => first + i);
}

function firstAddress(hosts: readonly Host[], backend: Backend): string {
  const ip = hosts[0]?.ips[0];
  if (ip === undefined)
    throw refused(`the backend ${backend} needs an IP of the first host`, 'Write "ips" into a hostfile.');
  return ip;
}

function devicesOf(hosts: readonly Host[], backend: Backend): Host["rdma"][] {
  const count = hosts.length;
  for (const [i, { ssh, rdma }] of hosts.entries()) {
    if (rdma.length !== count) throw refused(`${ssh} has ${rdma.length} RDMA devices for ${count} hosts`, rdmaHint);
    if (rdma[i] !== null) throw refused(`${ssh} has an RDMA device to itself`, rdmaHint);
    const neighbours = [(i + count - 1) % count, (i + 1) % count];
    const lacking = rdma.findIndex(
      (device, j) => j !== i && device === null && (backend === "jaccl" || neighbours.includes(j)),
    );
    if (lacking >= 0) throw refused(`${ssh} has no RDMA device to ${hosts[lacking]!.ssh}`, rdmaHint);
  }
  return hosts.map(({ rdma }) => rdma);
}

const rdmaHint = 'In the hostfile, "rdma" has a device for each host, and null for the host itself.';

function refused(message: string, hint: string): UserError {
  return new UserError(message, { code: ExitCode.usage, hint });
}
