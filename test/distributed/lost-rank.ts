/** One rank of a group of which one is killed while collectives run: prints the errors of this and the next collective. */
import * as mx from "../../src/mlx";
import { sayFailure } from "./rank-end";

const group = mx.distributed.init({ strict: true });
const victim = Number(process.argv[2]);

function step(): void {
  mx.scope(() => {
    let x = mx.ones([50_000]);
    for (let i = 0; i < 20; i++) x = mx.distributed.allSum(x, { group }).multiply(0.3);
    mx.eval(x);
  });
}

sayFailure(() => {
  for (let i = 0; ; i++) {
    step();
    if (group.rank === victim && i === 2) process.kill(process.pid, "SIGKILL");
  }
});
sayFailure(step, "again: ");
process.exit();
