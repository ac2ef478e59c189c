/** Two ranks that sum tensors of different lengths: prints the error. */
import * as mx from "../../src/mlx";

const group = mx.distributed.init({ strict: true });
try {
  mx.eval(mx.distributed.allSum(mx.ones([10 + group.rank]), { group }));
} catch (error) {
  console.log((error as Error).message);
}
process.exit();
