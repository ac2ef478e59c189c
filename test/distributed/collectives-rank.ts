/** One rank of collectives.test.ts: prints what each collective gave. */
import * as mx from "../../src/mlx";
import { Linear, Stage } from "../../src/nn";
import { SecondMoments } from "../../src/quant/second-moments";
import { report } from "./rank-end";

const group = mx.distributed.init({ strict: true });
const { rank, size } = group;
const isMesh = process.env.MLXLM_DISTRIBUTED === "tcp";
const own = () => mx.array([rank + 1, -rank, 0.5]);
const dtypes = ["float32", "float16", "bfloat16", "int32", "uint8", "int64"] as const;

/** Longer than what goes in one exchange, and no multiple of the number of ranks. */
const long = 200_003;

const results = {
  rank,
  size,
  sum: mx.distributed.allSum(own(), { group }).toList(),
  max: mx.distributed.allMax(own(), { group }).toList(),
  min: mx.distributed.allMin(own(), { group }).toList(),
  sums: dtypes.map((dtype) =>
    mx.distributed
      .allSum(mx.full([2], rank + 1, dtype), { group })
      .astype("float32")
      .toList(),
  ),
  gathered: mx.distributed.allGather(own().reshape(1, 3), { group }).toList(),
  longSum: (() => {
    const x = mx.arange(0, long).multiply(rank + 1);
    const sum = mx.distributed.allSum(x, { group });
    const expected = mx.arange(0, long).multiply((size * (size + 1)) / 2);
    return mx.abs(sum.subtract(expected)).max().item();
  })(),
  received: (() => {
    const right = (rank + 1) % size;
    const left = (rank + size - 1) % size;
    const sent = () => mx.distributed.send(mx.full([4], rank, "float32"), right, { group });
    const received = () => mx.distributed.recv([4], "float32", left, { group });
    if (rank % 2 === 0) {
      mx.eval(sent());
      return received().toList();
    }
    const values = received().toList();
    mx.eval(sent());
    return values;
  })(),
  /** Of Σ (Σ over ranks of x · (rank + 1))². */
  gradient: mx
    .grad((x: mx.Tensor) =>
      mx.distributed
        .allSum(x.multiply(rank + 1), { group })
        .square()
        .sum(),
    )(mx.ones([2]))
    .toList(),
  scattered: isMesh ? mx.distributed.sumScatter(mx.arange(0, 2 * size).multiply(rank + 1), { group }).toList() : null,
  split: isMesh ? splitSums() : null,
  staged: [group, new mx.distributed.Group(group.id, false)].map(stagedSteps),
  moments: momentsOfAll(),
  leaked: leaks(),
};

/** A pipeline of x → 2x + rank, by messages and where there are only sums. */
function stagedSteps(among: mx.distributed.Group) {
  const own = (x: mx.Tensor) => x.multiply(2).add(rank);
  return new Stage(among).run(mx.array([[1], [0.5]]), own).toList();
}

/** Σ xᵀx over the inputs of all ranks, each with a row of its own. */
function momentsOfAll() {
  const layer = new Linear(2, 2);
  const moments = new SecondMoments([layer]);
  mx.scope(() => layer.forward(mx.array([[1, rank]])));
  moments.stop();
  moments.sumOver(group);
  const H = moments.sums[0]!.H.toList();
  moments.dispose();
  return H;
}

/** Even and odd ranks apart, in the opposite order. */
function splitSums() {
  const half = group.split(rank % 2, size - rank);
  return { rank: half.rank, size: half.size, sum: mx.distributed.allSum(mx.array([rank]), { group: half }).toList() };
}

/** Handles that 50 rounds leave behind, and bytes. */
function leaks(): number[] {
  const round = () =>
    mx.scope(() => {
      const x = mx.ones([1000]);
      const all = [
        mx.distributed.allSum(x, { group }),
        mx.distributed.allMax(x, { group }),
        mx.distributed.allGather(x, { group }),
      ];
      mx.eval(all);
    });
  round();
  const before = [mx.liveHandles(), mx.activeMemory()];
  for (let i = 0; i < 50; i++) round();
  return [mx.liveHandles() - before[0]!, mx.activeMemory() - before[1]!];
}

report(results);
