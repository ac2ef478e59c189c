/** Two ranks that sum tensors of different lengths: prints the error. */
import * as mx from "../../src/mlx";
import { sayFailure } from "./rank-end";

const group = mx.distributed.init({ strict: true });
sayFailure(() => mx.eval(mx.distributed.allSum(mx.ones([10 + group.rank]), { group })));
process.exit();
