/** Process groups and collectives. */
import { codeOf, type Dtype } from "./dtype";
import * as abi from "./generated/ops";
import { native } from "./library";
import { cString } from "./mailbox";
import { checked, type Handle } from "./native";
import { wrap } from "./operand";
import type { Tensor } from "./tensor";

/** Processes that work together; this process is number `rank` of `size`. */
export class Group {
  constructor(readonly id: number) {}

  get rank(): number {
    return checked(native.mlxlm_group_rank(this.id));
  }

  get size(): number {
    return checked(native.mlxlm_group_size(this.id));
  }

  /** The group of those that pass the same color, ordered by key. */
  split(color: number, key = -1): Group {
    return new Group(checked(native.mlxlm_group_split(this.id, color, key)));
  }
}

export type DistributedBackend = "any" | "ring" | "mpi" | "nccl" | "jaccl";

export function isAvailable(backend: DistributedBackend = "any"): boolean {
  return checked(native.mlxlm_distributed_available(cString(backend))) === 1;
}

/** The group of all processes; a group of one where none were launched together, unless `strict`. */
export function init({ strict = false, backend = "any" as DistributedBackend } = {}): Group {
  return new Group(checked(native.mlxlm_distributed_init(strict, cString(backend))));
}

interface InGroup {
  group?: Group | null;
}

type Collective = (x: Tensor, options?: InGroup) => Tensor;

function collective(op: (x: Handle, group: number | null) => Handle): Collective {
  return (x, { group = null } = {}) => wrap(op(x.handle, group?.id ?? null));
}

export const allSum = collective(abi.distributed_all_sum);
export const allMax = collective(abi.distributed_all_max);
export const allMin = collective(abi.distributed_all_min);

/** Every process's tensor, joined along the first axis. */
export const allGather = collective(abi.distributed_all_gather);

/** The sum over processes, each of which gets its share of the first axis. */
export const sumScatter = collective(abi.distributed_sum_scatter);

/** Sends to a process; the returned tensor is `x`, and evaluating it does the sending. */
export function send(x: Tensor, destination: number, { group = null }: InGroup = {}): Tensor {
  return wrap(abi.distributed_send(x.handle, destination, group?.id ?? null));
}

export function recv(shape: readonly number[], dtype: Dtype, source: number, { group = null }: InGroup = {}): Tensor {
  return wrap(abi.distributed_recv(shape, codeOf(dtype), source, group?.id ?? null));
}

export function recvLike(x: Tensor, source: number, { group = null }: InGroup = {}): Tensor {
  return wrap(abi.distributed_recv_like(x.handle, source, group?.id ?? null));
}
