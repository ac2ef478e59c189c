/** Ranks on GPUs of one host that sum and gather through each other's memory (vendor/mlx/src/cuda/peers.h). */
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { environment } from "../environment";
import { arange } from "./creation";
import { deviceInfo } from "./devices";
import { allGather, allSum, type Group } from "./distributed";
import { arrayEqual, logicalAnd } from "./elementwise";
import { MlxError } from "./error";
import { gatherJson } from "./group-messages";
import { native } from "./library";
import { cFields } from "./mailbox";
import { checked, readFields } from "./native";
import { scope } from "./scope";
import { stack } from "./shaping";

/** How long a rank of the test waits for another, whose kernels may still have to be compiled. */
const testSeconds = 10;

/** A number, one message in lines, one in chunks. */
const testSizes = [1, 2048, 1 << 20];
const testDtypes = ["float32", "int32"] as const;

/**
 * Has a group of NCCL's exchange what it can through GPU memory, where all ranks are on one host whose GPUs reach each other.
 * That is tested first. All ranks call it.
 * @returns null, or why the group goes on without
 */
export function joinPeerMemory(group: Group): string | null {
  if (environment("MLXLM_PEER_MEMORY") === "0") return "MLXLM_PEER_MEMORY is 0";
  const places = gatherJson(group, { host: thisHost(), gpu: deviceInfo().device_name ?? null });
  if (new Set(places.map(({ host }) => host)).size > 1) return "the ranks are on several hosts";
  // A kernel that sums as it goes must be there for all, or for none.
  if (new Set(places.map(({ gpu }) => gpu)).size > 1) return "the ranks' GPUs are of several kinds";
  const offers: string[] = [];
  return (
    agreed(group, () => void offers.push(readFields(native.mlxlm_peers_offer(group.size))[0]!)) ??
    agreed(group, () => join(group, gatherJson(group, offers[0]!))) ??
    tested(group)
  );
}

const thisHost = () => {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8");
  } catch {
    return hostname();
  }
};

function join(group: Group, offers: readonly string[]): void {
  const { bytes, length } = cFields(offers);
  checked(native.mlxlm_peers_join(group.id, bytes, length));
}

/** Does it on all ranks. @returns the first rank's problem */
function agreed(group: Group, work: () => void): string | null {
  let problem: string | null = null;
  try {
    work();
  } catch (error) {
    if (!(error instanceof MlxError)) throw error;
    problem = error.message;
  }
  const problems = gatherJson(group, problem);
  const rank = problems.findIndex((one) => one !== null);
  return rank < 0 ? null : `rank ${rank}: ${problems[rank]}`;
}

function tested(group: Group): string | null {
  const use = (on: boolean, seconds = 0) => checked(native.mlxlm_peers_use(group.id, on, seconds));
  use(true, testSeconds);
  const isRight = testSizes.every((size) => testDtypes.every((dtype) => exchangesRightly(group, size, dtype)));
  use(false);
  const problem = agreed(group, () => {
    if (!isRight) throw new MlxError("a sum through the GPUs' memory was wrong");
  });
  use(problem === null);
  return problem;
}

/** Three rounds: places are used in turn. */
function exchangesRightly(group: Group, size: number, dtype: (typeof testDtypes)[number]): boolean {
  const of = (rank: number, round: number) =>
    arange(0, size)
      .remainder(251)
      .add(1000 * rank + round)
      .astype(dtype);
  return [0, 1, 2].every((round) =>
    scope(() => {
      const own = of(group.rank, round).reshape(1, size);
      const everyone = stack(Array.from({ length: group.size }, (_, rank) => of(rank, round)));
      const sum = allSum(own, { group }).reshape(size);
      const all = allGather(own, { group });
      const isRight = logicalAnd(arrayEqual(sum, everyone.sum({ axis: 0 })), arrayEqual(all, everyone));
      return isRight.item() === 1;
    }),
  );
}
