/** Rank 0 waits a second for a rank that ends without joining. */
import * as mx from "../../src/mlx";
import { groupFromEnvironment } from "../../src/mlx/group-environment";
import { sayFailure } from "./rank-end";

const addresses = groupFromEnvironment()!;
if (addresses.rank === 0) {
  sayFailure(() => mx.distributed.connect({ ...addresses, seconds: 1 }));
}
process.exit();
