/**
 * How far products on the CPU are from float64's, as one JSON line: `{ name: [largest error, mean error], … }`, both
 * relative to the result's largest value. cpu-kernels.test.ts runs it with kernels on, off, and for each instruction set.
 */
import * as mx from "../src/mlx";

type Floats = "float32" | "bfloat16" | "float16";
const dtypes: readonly Floats[] = ["float32", "bfloat16", "float16"];
const errors: Record<string, [largest: number, mean: number]> = {};

const float64 = (x: mx.Tensor): number[] => x.astype("float32").reshape(-1).toList() as number[];

/** x (m, k) × w (k, n) in float64; `w(k, n)` gives an element. */
function product(x: readonly number[], [m, k, n]: readonly number[], w: (k: number, n: number) => number): number[] {
  const result = new Array<number>(m! * n!).fill(0);
  for (let column = 0; column < n!; column++) {
    for (let i = 0; i < k!; i++) {
      const number = w(i, column);
      for (let row = 0; row < m!; row++) result[row * n! + column]! += x[row * k! + i]! * number;
    }
  }
  return result;
}

function record(name: string, made: mx.Tensor, exact: readonly number[]): void {
  const values = float64(made);
  if (values.length !== exact.length) throw new Error(`${name}: ${values.length} values, not ${exact.length}`);
  const scale = exact.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
  const off = values.map((value, i) => Math.abs(value - exact[i]!) / scale);
  errors[name] = [Math.max(0, ...off), off.reduce((sum, x) => sum + x, 0) / Math.max(1, off.length)];
}

/** The numbers of a packed matrix's row in float64, from the bits themselves. */
function unpacked(w: mx.Tensor, scales: mx.Tensor, biases: mx.Tensor | null, options: mx.Quantization): number[][] {
  const { bits, groupSize, mode } = options as { bits: number; groupSize: number; mode: string };
  const words = w.toList() as number[][];
  const scaleRows = (scales.dtype === "uint8" ? scales : scales.astype("float32")).toList() as number[][];
  const biasRows = biases && (biases.astype("float32").toList() as number[][]);
  const fp4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
  const e4m3 = (byte: number) => {
    const exponent = (byte >> 3) & 15;
    const size = exponent === 0 ? (byte & 7) * 2 ** -9 : (8 + (byte & 7)) * 2 ** (exponent - 10);
    return byte & 128 ? -size : size;
  };
  return words.map((row, r) =>
    Array.from({ length: (row.length * 32) / bits }, (_, i) => {
      let code = 0;
      for (let b = 0; b < bits; b++) code |= ((row[(i * bits + b) >> 5]! >>> ((i * bits + b) & 31)) & 1) << b;
      const group = Math.floor(i / groupSize);
      const scale = scaleRows[r]![group]!;
      if (biasRows) return code * scale + biasRows[r]![group]!;
      const value = bits === 8 ? e4m3(code) : (code & 8 ? -1 : 1) * fp4[code & 7]!;
      return value * (mode === "nvfp4" ? e4m3(scale) : 2 ** (scale - 127));
    }),
  );
}

const affine = [2, 3, 4, 5, 6, 8].flatMap((bits) =>
  [32, 64, 128].map((groupSize) => ({ mode: "affine" as const, bits, groupSize })),
);
const modes = [
  ...affine,
  { mode: "mxfp4" as const, bits: 4, groupSize: 32 },
  { mode: "mxfp8" as const, bits: 8, groupSize: 32 },
  { mode: "nvfp4" as const, bits: 4, groupSize: 16 },
];

mx.random.seed(8);
const draw = (shape: number[], dtype: Floats) => mx.random.normal({ shape }).astype(dtype);

for (const options of modes) {
  const label = `${options.mode} ${options.bits} bits by ${options.groupSize}`;
  for (const dtype of dtypes) {
    for (const [rows, outputs, inputs] of [
      [1, 37, 384],
      [3, 16, 128],
      [7, 67, 256],
      [26, 35, 384],
    ] as const) {
      mx.scope(() => {
        const [w, scales, biases = null] = mx.quantize(draw([outputs, inputs], dtype), options);
        const dense = unpacked(w, scales, biases, options);
        const x = draw([rows, inputs], dtype);
        const exact = product(float64(x), [rows, inputs, outputs], (k, n) => dense[n]![k]!);
        record(`${label}, ${dtype}, ${rows} rows`, mx.quantizedMatmul(x, w, scales, biases, options), exact);
      });
    }
    mx.scope(() => {
      const [rows, outputs, inputs] = [9, 384, 45];
      const [w, scales, biases = null] = mx.quantize(draw([inputs, outputs], dtype), options);
      const dense = unpacked(w, scales, biases, options);
      const x = draw([rows, inputs], dtype);
      const exact = product(float64(x), [rows, inputs, outputs], (k, n) => dense[k]![n]!);
      const made = mx.quantizedMatmul(x, w, scales, biases, { ...options, transpose: false });
      record(`${label}, ${dtype}, not transposed`, made, exact);
    });
  }
}

for (const dtype of dtypes) {
  for (const [rows, outputs, inputs] of [
    [1, 130, 257],
    [4, 33, 64],
    [5, 17, 1],
    [31, 70, 301],
    [2, 3, 0],
    [0, 4, 8],
  ] as const) {
    for (const transposed of [true, false]) {
      mx.scope(() => {
        const x = draw([rows, inputs], dtype);
        const w = draw(transposed ? [outputs, inputs] : [inputs, outputs], dtype);
        const [numbers, width] = [float64(w), transposed ? inputs : outputs];
        const exact = product(float64(x), [rows, inputs, outputs], (k, n) =>
          transposed ? numbers[n * width + k]! : numbers[k * width + n]!,
        );
        const name = `${dtype} ${rows} × ${inputs} × ${outputs}${transposed ? ", transposed" : ""}`;
        record(name, x.matmul(transposed ? w.T : w), exact);
      });
    }
  }
}

console.log(JSON.stringify(errors));
