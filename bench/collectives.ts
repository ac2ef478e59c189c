/** Sums over ranks as a model has them, each needing the one before: microseconds, and the bandwidth of what is summed. By `ranks.ts`. */
import * as mx from "../src/mlx";
import { RMSNorm } from "../src/nn";
import { joinedGroup } from "./group";
import { median } from "./median";

const group = joinedGroup();
const chain = 64;
const rounds = 9;

/** Microseconds of each of `chain` sums, each `from` the one before. */
function microseconds(begin: () => mx.Tensor, from: (last: mx.Tensor) => mx.Tensor): number {
  const times = Array.from({ length: rounds }, () => {
    const began = performance.now();
    mx.scope(() => {
      let last = begin();
      for (let i = 0; i < chain; i++) last = from(last);
      mx.eval(last);
    });
    return ((performance.now() - began) / chain) * 1000;
  });
  return median(times);
}

function say(how: string, bytes: number, microseconds: number): void {
  console.log(JSON.stringify({ how, bytes, microseconds, gigabytes_per_second: bytes / microseconds / 1000 }));
}

const sumOf = (x: mx.Tensor) => mx.distributed.allSum(x, { group });
for (const elements of [4096, 4096 * 8, 4096 * 32, 4096 * 128, 4096 * 512, 4096 * 2048, 4096 * 4096]) {
  const x = mx.zeros([elements], "bfloat16");
  mx.eval(x);
  say(
    "sum",
    elements * 2,
    microseconds(() => x, sumOf),
  );
}

const norm = new RMSNorm(4096);
mx.scope(() => norm.update(norm.namedParameters().map(([name, x]) => [name, x.astype("bfloat16")])));
for (const rows of [32, 64, 128, 512, 2048, 4096]) {
  const x = mx.zeros([1, rows, 4096], "bfloat16");
  mx.eval(x);
  let stream = x;
  const summed = (last: mx.Tensor) => {
    const [sum, normed] = norm.afterSum!(stream, sumOf(last));
    stream = sum;
    return normed;
  };
  say(
    "sum, add and norm",
    rows * 8192,
    microseconds(() => (stream = x), summed),
  );
}
process.exit(0);
