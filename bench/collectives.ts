/** Sums over ranks as a model has them, each needing the one before: microseconds, and the bandwidth of what is summed. By `ranks.ts`. */
import * as mx from "../src/mlx";
import { joinedGroup } from "./group";
import { median } from "./median";

const group = joinedGroup();
const chain = 64;
const rounds = 9;
for (const elements of [4096, 4096 * 8, 4096 * 32, 4096 * 128, 4096 * 512, 4096 * 2048]) {
  const x = mx.zeros([elements], "bfloat16");
  mx.eval(x);
  const times = Array.from({ length: rounds }, () => {
    const began = performance.now();
    mx.scope(() => {
      let sum = x;
      for (let i = 0; i < chain; i++) sum = mx.distributed.allSum(sum, { group });
      mx.eval(sum);
    });
    return ((performance.now() - began) / chain) * 1000;
  });
  const microseconds = median(times);
  const bandwidth = (elements * 2) / microseconds / 1000;
  console.log(JSON.stringify({ bytes: elements * 2, microseconds, gigabytes_per_second: bandwidth }));
}
process.exit(0);
