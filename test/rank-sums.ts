/**
 * Sums over ranks, by themselves and with the addition and the norm behind them: of whole numbers, so that every bit is known. Long ones
 * go in several rounds of chunks, with a ragged last one. Of GPUs, so it is no test of `bun test`; it runs on a CPU too.
 *
 *   bun bench/ranks.ts 2 test/rank-sums.ts
 */
import { joinedGroup } from "../bench/group";
import * as mx from "../src/mlx";
import { RMSNorm } from "../src/nn";

const group = joinedGroup();
if (!group) throw new Error("bun bench/ranks.ts 2 test/rank-sums.ts");

/** Whole numbers below 31: eight ranks' sums of them are exact in bfloat16. */
const partOf = (rank: number, count: number, round = 0) =>
  mx
    .arange(count)
    .multiply(7)
    .add(3 * rank + round)
    .remainder(31);

/** What all ranks' parts sum to. */
function sumOf(count: number, round = 0): mx.Tensor {
  let sum = partOf(0, count, round);
  for (let rank = 1; rank < group!.size; rank++) sum = sum.add(partOf(rank, count, round));
  return sum;
}

let failed = 0;
function say(name: string, isRight: boolean): void {
  if (!isRight) failed++;
  console.log(`${isRight ? "right" : "WRONG"}: ${name}`);
}

const areEqual = (a: mx.Tensor, b: mx.Tensor) => mx.arrayEqual(a.astype("float32"), b.astype("float32")).item() === 1;

/** Of GPUs' messages: one line, many, the longest in lines, a chunk for each block, and rounds of them. */
const counts = [8, 4096, 1 << 18, 1 << 20, 10_485_784];
for (const dtype of ["bfloat16", "float16", "float32", "int32"] as const) {
  for (const count of counts) {
    mx.scope(() => {
      const sums = [0, 1, 2].map((round) =>
        mx.distributed.allSum(partOf(group.rank, count, round).astype(dtype), { group }),
      );
      // One behind the other on a GPU, with nothing of the host's between them.
      mx.eval(sums);
      const isRight = sums.map((sum, round) => areEqual(sum, sumOf(count, round)));
      say(`three sums of ${count} numbers in ${dtype}`, isRight.every(Boolean));
      const aside = partOf(group.rank, count + 1)
        .astype(dtype)
        .at(mx.slice(1));
      say(
        `one of ${count} in ${dtype} that begins beside 16 bytes`,
        areEqual(mx.distributed.allSum(aside, { group }), sumOf(count + 1).at(mx.slice(1))),
      );
      const all = mx.distributed.allGather(partOf(group.rank, count).astype(dtype), { group });
      const each = mx.concatenate(Array.from({ length: group.size }, (_, rank) => partOf(rank, count)));
      say(`${count} numbers in ${dtype} of all ranks`, areEqual(all, each));
    });
  }
}

for (const [rows, dims] of [
  [3, 4096],
  [33, 896],
  [700, 3072],
  [2501, 4096],
  [8193, 512],
  [2049, 5120],
  [321, 16_384],
] as const) {
  const norm = new RMSNorm(dims);
  mx.scope(() => {
    norm.update([["weight", partOf(0, dims).add(1).astype("bfloat16")]]);
    const count = rows * dims;
    const placed = (x: mx.Tensor) => x.astype("bfloat16").reshape(1, rows, dims);
    const stream = placed(mx.arange(count).remainder(5));
    for (const [name, part] of [
      ["", placed(partOf(group.rank, count))],
      [
        ", beside 16 bytes",
        placed(
          partOf(group.rank, count + 1)
            .astype("bfloat16")
            .at(mx.slice(1)),
        ),
      ],
    ] as const) {
      const [sum, normed] = norm.afterSum(stream, mx.distributed.allSum(part, { group }));
      const joint = name === "" ? sumOf(count) : sumOf(count + 1).at(mx.slice(1));
      const wanted = stream.add(placed(joint));
      const wide = wanted.astype("float32");
      const scale = mx.rsqrt(wide.square().mean({ axis: -1, keepdims: true }).add(norm.eps));
      const expected = wide.multiply(scale).multiply(norm.weight.astype("float32"));
      const off = normed.astype("float32").subtract(expected).abs().max().item() / expected.abs().max().item();
      say(`${rows} rows of ${dims} with their norm${name}, ${off.toFixed(4)} off`, areEqual(sum, wanted) && off < 0.01);
    }
  });
  norm.dispose();
}
process.exit(failed === 0 ? 0 : 1);
