/** The group that a launcher describes in the environment, as MLX's own launchers do. */
import { z } from "zod";
import { environment } from "../environment";
import { ExitCode, UserError } from "../errors";
import { inputTextSync } from "../input-file";

export interface GroupAddresses {
  rank: number;
  /** "HOST:PORT" of each rank. */
  addresses: readonly string[];
  /** What members must say; others are turned away. */
  key?: string;
  /** How long to wait for the others. */
  seconds?: number;
}

/** Addresses of each rank: MLX's ring connects by all of them, mlxlm by the first. */
const Hosts = z.array(z.array(z.string().refine(hasPort)).min(1)).min(1);

function hasPort(address: string): boolean {
  const port = Number(/.:(\d+)$/.exec(address)?.[1]);
  return port >= 1 && port <= 65_535;
}

/**
 * What MLX_RANK and MLX_HOSTFILE say; null where one of them is not set.
 * @throws UserError for a file that is not such a list, or has no such rank
 */
export function groupFromEnvironment(env = process.env): GroupAddresses | null {
  const rank = environment("MLX_RANK", env);
  const file = environment("MLX_HOSTFILE", env);
  if (rank === undefined || file === undefined) return null;
  const hosts = Hosts.safeParse(contentOf(file));
  if (!hosts.success) throw refused(file, 'must be a JSON list with a list of "IP:PORT" for each process');
  if (!/^\d+$/.test(rank) || Number(rank) >= hosts.data.length) {
    throw refused(file, `names ${hosts.data.length} processes, so there is no MLX_RANK ${JSON.stringify(rank)}`);
  }
  return {
    rank: Number(rank),
    addresses: hosts.data.map(([first]) => first!),
    key: environment("MLXLM_GROUP_KEY", env),
  };
}

/** What a launcher sets beside MLX_RANK, one for each backend. */
const companions = ["MLX_HOSTFILE", "NCCL_HOST_IP", "MLX_JACCL_COORDINATOR"] as const;

/** Whether a launcher says where the first process waits with NCCL. */
export const isForNccl = (env = process.env): boolean => environment(companions[1], env) !== undefined;

/** mpirun's own number of a process. */
const mpiRank = "OMPI_COMM_WORLD_RANK";

/** Whether this process was started as one of a group. */
export function isLaunched(env = process.env): boolean {
  if (environment("MLXLM_DISTRIBUTED", env) === "mpi") return true;
  return environment("MLX_RANK", env) !== undefined && companions.some((name) => environment(name, env) !== undefined);
}

/** Whether this process is the one of its group that speaks to the user: the first, or the only one. */
export function isLead(env = process.env): boolean {
  if (!isLaunched(env)) return true;
  return Number(environment("MLX_RANK", env) ?? env[mpiRank] ?? 0) === 0;
}

/** What a JSON file says; undefined where it is none. @throws UserError where it can't be read */
function contentOf(file: string): unknown {
  let text: string | null;
  try {
    text = inputTextSync(file);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw refused(file, `can't be read: ${(error as NodeJS.ErrnoException).code}`);
  }
  if (text === null) throw refused(file, "can't be read: ENOENT");
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function refused(file: string, problem: string): UserError {
  return new UserError(`MLX_HOSTFILE ${file} ${problem}`, {
    code: ExitCode.usage,
    hint: "Start the processes with mlxlm launch, which writes it.",
  });
}
