/** Rank 0 waits a second for a rank that ends without joining. */
import * as mx from "../../src/mlx";
import { groupFromEnvironment } from "../../src/mlx/group-environment";

const addresses = groupFromEnvironment()!;
if (addresses.rank === 0) {
  try {
    mx.distributed.connect({ ...addresses, seconds: 1 });
  } catch (error) {
    console.log((error as Error).message);
  }
}
process.exit();
