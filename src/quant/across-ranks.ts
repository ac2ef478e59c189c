/** Quantizing on several processes: each has the whole model and runs some of the calibration data. The first saves. */
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { isLaunched } from "../mlx/group-environment";
import { gatherJson } from "../mlx/group-messages";

type Group = mx.distributed.Group;

/** The processes of this work; null where there is this one only. @throws UserError for what ranks cannot do */
export function quantizingGroup({ resume }: { resume: boolean }): Group | null {
  if (!isLaunched()) return null;
  if (resume) {
    throw new UserError("--resume does not go with several ranks", {
      code: ExitCode.usage,
      hint: "Go on without mlxlm launch, or begin again.",
    });
  }
  const group = mx.distributed.init({ strict: true });
  return group.size > 1 ? group : null;
}

/** @throws UserError where a rank would have no data */
export function checkRows(rows: readonly unknown[], group: Group | null): void {
  if (!group || rows.length >= group.size) return;
  throw new UserError(`${rows.length} rows of data are too few for ${group.size} ranks`, {
    code: ExitCode.usage,
    hint: "Take more data: --num-samples, --data-path",
  });
}

/** Which of `total` rows of data are this rank's: those from `first` to `end`. */
export class RowShare {
  readonly first: number;
  readonly end: number;

  constructor(
    readonly group: Group,
    readonly total: number,
  ) {
    const edge = (rank: number) => Math.floor((total * rank) / group.size);
    [this.first, this.end] = [edge(group.rank), edge(group.rank + 1)];
  }

  /** The sum over ranks, the same bits on each of them. */
  sum(x: Tensor): Tensor {
    return mx.distributed.allSum(x, { group: this.group });
  }

  /** The mean over all rows, of what is the mean over this rank's. */
  mean(x: Tensor): Tensor {
    return this.sum(x.astype("float32").multiply((this.end - this.first) / this.total)).astype(x.dtype);
  }

  /** Sums of some numbers over ranks, in their order. */
  sums(numbers: readonly number[]): number[] {
    const all = gatherJson(this.group, numbers);
    return numbers.map((_, i) => all.reduce((sum, some) => sum + some[i]!, 0));
  }

  /** Which of `count` rows of a matrix this rank works on: from where to where. There may be none. */
  part(count: number): [start: number, end: number] {
    const each = Math.ceil(count / this.group.size);
    const start = Math.min(this.group.rank * each, count);
    return [start, Math.min(start + each, count)];
  }

  /** All rows of a matrix like `whole` (count, K), of which each rank has made its part. */
  gather(count: number, own: readonly Tensor[], whole: Tensor): Tensor {
    const [start, end] = this.part(count);
    const lacking = Math.ceil(count / this.group.size) - (end - start);
    const rest = mx.zeros([lacking, ...whole.shape.slice(1)], whole.dtype);
    const even = lacking > 0 ? mx.concatenate([...own, rest]) : mx.concatenate([...own]);
    return mx.distributed.allGather(even, { group: this.group }).at(mx.slice(0, count));
  }
}
