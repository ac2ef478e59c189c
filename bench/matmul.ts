/**
 * A float32 product on the CPU, ours in turn with Python's MLX wheel: 512×1024 by 1024×1024.
 *
 *   bun bench/matmul.ts --python PATH [--runs 5]
 */
import { parseArgs } from "node:util";
import * as mx from "../src/mlx";
import { median } from "./median";

const { values } = parseArgs({
  options: { python: { type: "string", default: "python3" }, runs: { type: "string", default: "5" } },
});
const [m, k, n] = [512, 1024, 1024];
const flops = 2 * m * k * n;

const script = `
import time, mlx.core as mx
mx.set_default_device(mx.cpu)
a, b = mx.random.normal((${m}, ${k})), mx.random.normal((${n}, ${k}))
mx.eval(a, b, a @ b.T)
began = time.perf_counter()
mx.eval(a @ b.T)
print(time.perf_counter() - began)
`;

mx.setDefaultDevice("cpu");
const [a, b] = [mx.random.normal({ shape: [m, k] }), mx.random.normal({ shape: [n, k] })];
const multiply = () => {
  const product = mx.scope(() => a.matmul(b.T));
  mx.eval(product);
  product.dispose();
};
mx.eval(a, b);
multiply();

const ours: number[] = [];
const theirs: number[] = [];
for (let run = 0; run < Number(values.runs); run++) {
  const began = performance.now();
  for (let i = 0; i < 10; i++) multiply();
  ours.push(flops / ((performance.now() - began) / 10) / 1e6);
  const python = Bun.spawnSync([values.python, "-c", script], { stdout: "pipe" });
  theirs.push(flops / Number(python.stdout.toString()) / 1e9);
}
console.log(
  `mlxlm ${median(ours).toFixed(1)} GFLOP/s, the wheel ${median(theirs).toFixed(1)}, ratio ${(median(ours) / median(theirs)).toFixed(1)}`,
);
