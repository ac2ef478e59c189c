/** One of two processes that connect at these ports, if they say the same key. Prints the sum that both get, or why there is none. */
import * as mx from "../../src/mlx";
import { sayFailure } from "./rank-end";

const [, , rank, ports, key] = process.argv as [string, string, string, string, string];

sayFailure(() => {
  const addresses = ports.split(",").map((port) => `127.0.0.1:${port}`);
  const group = mx.distributed.connect({ rank: Number(rank), addresses, key, seconds: key === "right" ? 20 : 1 });
  console.log(JSON.stringify(mx.distributed.allSum(mx.full([2], Number(rank) + 1), { group }).toList()));
});
process.exit();
