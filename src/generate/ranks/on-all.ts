/** Work that all processes of a group do, and that may fail on some of them. */
import { UserError } from "../../errors";
import * as mx from "../../mlx";
import { gatherJson } from "../../mlx/group-messages";
import { errorOfRank, type Failure, failureOf } from "./failures";

/** Milliseconds between two looks for the others. */
const look = 10;

/** Until all processes are here. Meanwhile this one goes on with what else it does: others may have much to download. */
async function allHere(group: mx.distributed.Group): Promise<void> {
  const here = mx.keep(mx.scope(() => mx.distributed.allSum(mx.array([1], "int32"), { group })));
  try {
    mx.asyncEval(here);
    while (!mx.isEvaluated(here)) await Bun.sleep(look);
  } finally {
    mx.release(here);
  }
}

/**
 * What the work gives on this process, where it succeeds on all of them, which must all call this. Within it they exchange
 * nothing.
 * @param undo gives back what this process has made in vain
 * @throws UserError on all where the work fails on any of them
 */
export async function onAll<T>(
  group: mx.distributed.Group,
  work: () => T | Promise<T>,
  undo?: (made: T) => void,
): Promise<T> {
  let made: { value: T } | null = null;
  let own: Failure | null = null;
  let cause: unknown;
  try {
    made = { value: await work() };
  } catch (error) {
    [own, cause] = [failureOf(error), error];
  }
  await allHere(group);
  const failures = gatherJson(group, own);
  const rank = failures.findIndex((failure) => failure !== null);
  if (rank < 0) return made!.value;
  if (made) undo?.(made.value);
  if (cause instanceof UserError) throw cause;
  throw own ? new UserError(own.message, { ...own, cause }) : errorOfRank(rank, failures[rank]!);
}
