/** A group of two, the second of which comes after others who do not know the key. Prints the sum that both got. */

import { freePorts } from "../../src/cli/launch/ports";
import * as mx from "../../src/mlx";
import { sayFailure } from "./rank-end";

const [, , port, own, key] = process.argv;
const rank = key === undefined ? 0 : 1;

if (key === undefined) {
  const [theirs, another] = freePorts(2);
  const join = (own: number, key: string) =>
    Bun.spawn([process.execPath, import.meta.path, port!, `${own}`, key], { stdout: "inherit", stderr: "inherit" });
  // They find the port closed until this process listens, and come again.
  const stranger = join(another!, "wrong");
  const friend = join(theirs!, "right");
  console.log(sumOf(theirs!, "right"));
  await Promise.all([stranger.exited, friend.exited]);
} else {
  sayFailure(() => sumOf(Number(own), key));
}
process.exit();

function sumOf(other: number, key: string): string {
  const addresses = [`127.0.0.1:${port}`, `127.0.0.1:${other}`];
  const group = mx.distributed.connect({ rank, addresses, key, seconds: key === "wrong" ? 1 : 20 });
  return JSON.stringify(mx.distributed.allSum(mx.full([2], rank + 1), { group }).toList());
}
