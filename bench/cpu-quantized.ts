/**
 * Products with quantized weights on the CPU, with kernels of ours and with MLX's, in turn. Prints ms a product and GFLOP/s
 * for each format, dtype and number of rows; the smallest of several runs.
 *
 *   bun bench/cpu-quantized.ts [--outputs 2816] [--inputs 1024] [--runs 3] [FORMAT…]
 */
import { parseArgs } from "node:util";
import * as mx from "../src/mlx";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    outputs: { type: "string", default: "2816" },
    inputs: { type: "string", default: "1024" },
    runs: { type: "string", default: "3" },
    /** In a process that measures: prints JSON. */
    measure: { type: "boolean", default: false },
  },
});
const formats: Record<string, mx.Quantization | null> = {
  dense: null,
  ...Object.fromEntries([2, 3, 4, 5, 6, 8].map((bits) => [`affine${bits}`, { bits, groupSize: 64 }])),
  mxfp4: { mode: "mxfp4" },
  mxfp8: { mode: "mxfp8" },
  nvfp4: { mode: "nvfp4" },
};
const wanted = positionals.length > 0 ? positionals : Object.keys(formats);
const [outputs, inputs] = [Number(values.outputs), Number(values.inputs)];

/** The shortest of a few products, in ms; one where it takes long. */
function shortest(product: () => mx.Tensor): number {
  let best = Number.POSITIVE_INFINITY;
  let spent = 0;
  for (let i = 0; i < 50 && spent < 200; i++) {
    const began = performance.now();
    mx.scope(() => mx.eval(product()));
    const time = performance.now() - began;
    best = Math.min(best, time);
    spent += time;
  }
  return best;
}

function measure(): Record<string, number> {
  const times: Record<string, number> = {};
  for (const name of wanted) {
    for (const dtype of ["float32", "bfloat16", "float16"] as const) {
      mx.scope(() => {
        const options = formats[name] ?? null;
        const dense = mx.random.normal({ shape: [outputs, inputs] }).astype(dtype);
        const [w, scales, biases = null] = options ? mx.quantize(dense, options) : [dense];
        for (const rows of [1, 4, 16, 128]) {
          const x = mx.random.normal({ shape: [rows, inputs] }).astype(dtype);
          mx.eval([w!, x, ...(scales ? [scales] : []), ...(biases ? [biases] : [])]);
          times[`${name} ${dtype} ${rows}`] = shortest(() =>
            options ? mx.quantizedMatmul(x, w!, scales!, biases, options) : x.matmul(w!.T),
          );
        }
      });
    }
  }
  return times;
}

function run(kernels: string): Record<string, number> {
  const command = [process.execPath, import.meta.path, "--measure", "--outputs", values.outputs];
  const { stdout, stderr, exitCode } = Bun.spawnSync([...command, "--inputs", values.inputs, ...wanted], {
    env: { ...process.env, MLXLM_CPU_KERNELS: kernels },
  });
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

if (values.measure) {
  console.log(JSON.stringify(measure()));
} else {
  const [ours, theirs] = [[] as Record<string, number>[], [] as Record<string, number>[]];
  for (let i = 0; i < Number(values.runs); i++) {
    ours.push(run("1"));
    theirs.push(run("0"));
  }
  const best = (runs: Record<string, number>[], key: string) => Math.min(...runs.map((run) => run[key]!));
  for (const key of Object.keys(ours[0]!)) {
    const [a, b] = [best(ours, key), best(theirs, key)];
    const flops = 2 * outputs * inputs * Number(key.split(" ").at(-1));
    const speed = (ms: number) => `${ms.toFixed(3)} ms (${(flops / ms / 1e6).toFixed(1)} GFLOP/s)`;
    console.log(`${key.padEnd(24)} ours ${speed(a).padEnd(28)} MLX ${speed(b).padEnd(28)} ratio ${(b / a).toFixed(1)}`);
  }
}
