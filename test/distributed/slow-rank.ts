/** A case of two ranks, of which the last computes for longer than a host may be silent, before it takes and gives what the others have long sent. */
import * as mx from "../../src/mlx";
import { report } from "./rank-end";

const group = mx.distributed.init({ strict: true });
const { rank, size } = group;
const last = size - 1;
const numbers = 4 << 20;
const late = () => rank === last && Bun.sleepSync(Number(process.argv[2]));

const full = (value: number, count = numbers) => mx.full([count], value, "float32");
const isAll = (x: mx.Tensor, value: number) => mx.arrayEqual(x, full(value, x.size)).item() === 1;
const send = (x: mx.Tensor, to: number) => mx.eval(mx.distributed.send(x, to, { group }));
const isReceived = (value: number, from: number, count = numbers) =>
  isAll(mx.distributed.recv([count], "float32", from, { group }), value);

const cases: Record<string, () => boolean> = {
  sum() {
    late();
    return isAll(mx.distributed.allSum(full(rank + 1), { group }), (size * (size + 1)) / 2);
  },
  message() {
    late();
    if (rank === 0) send(full(7), last);
    return rank !== last || isReceived(7, 0);
  },
  /** More than a system keeps for a process that does not read, in small messages. */
  messages() {
    late();
    let isRight = true;
    for (let i = 0; i < 400; i++) {
      if (rank === 0) send(full(i, 4000), last);
      if (rank === last) isRight &&= isReceived(i, 0, 4000);
    }
    return isRight;
  },
};
report(cases[process.argv[3]!]!());
