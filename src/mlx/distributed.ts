/** Process groups and collectives. A rank is a process's number in its group. */
import { environment } from "../environment";
import { codeOf, type Dtype } from "./dtype";
import { MlxError } from "./error";
import * as abi from "./generated/ops";
import { type GroupAddresses, groupFromEnvironment, isForNccl } from "./group-environment";
import { native } from "./library";
import { cFields, cString } from "./mailbox";
import { checked, type Handle } from "./native";
import { wrap } from "./operand";
import type { Tensor } from "./tensor";

/** Processes that work together; this process is number `rank` of `size`. */
export class Group {
  readonly rank: number;
  readonly size: number;

  constructor(
    readonly id: number,
    /** Whether they are connected by NCCL, so that each has an NVIDIA GPU. */
    readonly isNccl = false,
  ) {
    this.rank = checked(native.mlxlm_group_rank(id));
    this.size = checked(native.mlxlm_group_size(id));
  }

  /** Whether two of them can exchange something without the others: MLX's NCCL has no `send` and `recv`. */
  get sends(): boolean {
    return !this.isNccl;
  }

  /**
   * The group of those that pass the same color, ordered by key. Every process of this group must call it.
   * @throws MlxError on the backends ring and jaccl, which have no such groups
   */
  split(color: number, key = -1): Group {
    return new Group(checked(native.mlxlm_group_split(this.id, color, key)), this.isNccl);
  }
}

/** `tcp` is mlxlm's own: each process connected with each. The others are MLX's. */
export type DistributedBackend = "any" | "tcp" | "ring" | "mpi" | "nccl" | "jaccl";

/** Whether this build has the backend; whether processes were launched for it is another matter. */
export function isAvailable(backend: DistributedBackend = "any"): boolean {
  return backend === "tcp" || checked(native.mlxlm_distributed_available(cString(backend))) === 1;
}

/** How long processes wait for each other when a group begins. */
const usualSeconds = 60;

/**
 * The group of processes at these addresses, over TCP: this process listens at its own and connects to the others'. A
 * process that is lost later is an error of the next collective on all others, within 10 seconds.
 * @throws MlxError that names the first rank which did not come in time
 */
export function connect({ rank, addresses, key = "", seconds = usualSeconds }: GroupAddresses): Group {
  const { bytes, length } = cFields(addresses);
  return new Group(checked(native.mlxlm_distributed_connect(rank, bytes, length, cString(key), seconds)));
}

const groups = new Map<DistributedBackend, Group>();

/**
 * The group of all processes that were launched together, as the environment says it; a group of one where none were,
 * unless `strict`. `any` is what MLXLM_DISTRIBUTED names, or else `tcp` where MLX_HOSTFILE is set, or else MLX's choice.
 * @throws MlxError where processes do not find each other
 * @throws UserError for a MLX_HOSTFILE that is not readable
 */
export function init({ strict = false, backend = "any" as DistributedBackend } = {}): Group {
  const found = groups.get(backend) ?? begin(strict, backend);
  groups.set(backend, found);
  return found;
}

function begin(strict: boolean, backend: DistributedBackend): Group {
  const named = (backend === "any" && (environment("MLXLM_DISTRIBUTED") as DistributedBackend)) || backend;
  if (named === "tcp" || named === "any") {
    const addresses = groupFromEnvironment();
    if (addresses) return connect(addresses);
    if (named === "tcp" && strict) throw new MlxError("no group was launched: MLX_RANK or MLX_HOSTFILE is not set");
  }
  if (strict && named !== "tcp" && named !== "any") checkPresent(named);
  const id = checked(native.mlxlm_distributed_init(strict, cString(named === "tcp" ? "any" : named)));
  // As MLX chooses for "any".
  const isNccl = named === "nccl" || ((named === "any" || named === "tcp") && isForNccl() && hasCuda());
  return new Group(id, isNccl);
}

const hasCuda = () => checked(native.mlxlm_cuda_available()) === 1;

/**
 * What MLX does not say as an error: it takes a build that lacks the backend for a group of one, and its NCCL ends the
 * process where there is no GPU.
 */
function checkPresent(backend: DistributedBackend): void {
  if (!isAvailable(backend)) throw new MlxError(`this build of mlxlm has no ${backend}`);
  if (backend === "nccl" && !hasCuda()) {
    throw new MlxError("nccl connects NVIDIA GPUs, and this process finds none");
  }
}

/**
 * Builds what is evaluated within `build`, right behind it, or never. A kernel that exchanges messages comes behind the one that was asked for
 * last. Without this the next one would have all of this computed: a prompt's logits that nobody reads, or a pass on this process alone.
 */
export function evaluatedHereOrNever<T>(build: () => T): T {
  checked(native.mlxlm_messages_set_aside());
  try {
    return build();
  } finally {
    checked(native.mlxlm_messages_restore());
  }
}

interface InGroup {
  /** The group of all where absent. */
  group?: Group | null;
}

type Collective = (x: Tensor, options?: InGroup) => Tensor;

const idOf = (group: Group | null) => (group ?? init()).id;

function collective(op: (x: Handle, group: number | null) => Handle): Collective {
  return (x, { group = null } = {}) => wrap(op(x.handle, idOf(group)));
}

/** The sum over all processes, on each of them. Its gradient is that of the sum: each process's own. */
export const allSum = collective(abi.distributed_all_sum);
export const allMax = collective(abi.distributed_all_max);
export const allMin = collective(abi.distributed_all_min);

/** Every process's tensor, joined along the first axis: (N, …) → (size · N, …) */
export const allGather = collective(abi.distributed_all_gather);

/**
 * The sum over processes, each of which gets its share of the first axis: (size · N, …) → (N, …)
 * @throws MlxError on MLX's ring, which has none
 */
export const sumScatter = collective(abi.distributed_sum_scatter);

/** Sends to a process; the returned tensor is `x`, and evaluating it does the sending. */
export function send(x: Tensor, destination: number, { group = null }: InGroup = {}): Tensor {
  return wrap(abi.distributed_send(x.handle, destination, idOf(group)));
}

/** What a process sends, whose shape and dtype are known here. */
export function recv(shape: readonly number[], dtype: Dtype, source: number, { group = null }: InGroup = {}): Tensor {
  return wrap(abi.distributed_recv(shape, codeOf(dtype), source, idOf(group)));
}

/** The same with the shape and dtype of `x`. */
export function recvLike(x: Tensor, source: number, { group = null }: InGroup = {}): Tensor {
  return wrap(abi.distributed_recv_like(x.handle, source, idOf(group)));
}
