/**
 * How far norms, rotations, gates and attention are from float64: {case: [largest error, mean error]}, relative to the
 * largest value. `src/mlx/cpu-kernels.test.ts` runs it with and without kernels of ours.
 */
import * as mx from "../src/mlx";

const dtypes = ["float32", "bfloat16", "float16"] as const;
const errors: Record<string, [largest: number, mean: number]> = {};

/** The values of a tensor as doubles, in order. */
const valuesOf = (x: mx.Tensor) => Float64Array.from(x.astype("float32").reshape(-1).toArray() as Float32Array);

function record(name: string, got: mx.Tensor, wanted: Float64Array): void {
  const values = valuesOf(got);
  if (values.length !== wanted.length) throw new Error(`${name}: ${values.length} values, not ${wanted.length}`);
  const size = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const off = wanted.map((value, i) => Math.abs(value - values[i]!) / size);
  if (off.some(Number.isNaN)) throw new Error(`${name}: not a number`);
  errors[name] = [Math.max(...off), off.reduce((sum, value) => sum + value, 0) / off.length];
}

const draw = (shape: number[], dtype: mx.Dtype) => mx.random.normal({ shape }).astype(dtype);

function norm(row: Float64Array, weight: Float64Array, eps: number): Float64Array {
  const factor = 1 / Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / row.length + eps);
  return row.map((x, i) => x * factor * weight[i]!);
}

/** Rows of `dims` numbers, each through `fn`. */
const byRow = (x: Float64Array, dims: number, fn: (row: Float64Array, index: number) => Float64Array) =>
  Float64Array.from(
    Array.from({ length: x.length / dims }, (_, i) => [...fn(x.slice(i * dims, (i + 1) * dims), i)]).flat(),
  );

function norms(dtype: mx.Dtype): void {
  for (const [rows, dims] of [
    [1, 1],
    [3, 7],
    [2, 64],
    [5, 1000],
    [40, 2048],
  ] as const) {
    const [x, delta, weight] = [draw([1, rows, dims], dtype), draw([1, rows, dims], dtype), draw([dims], dtype)];
    const weights = valuesOf(weight);
    record(
      `rms norm ${rows}x${dims} ${dtype}`,
      mx.fast.rmsNorm(x, weight, 1e-5),
      byRow(valuesOf(x), dims, (row) => norm(row, weights, 1e-5)),
    );
    const turned = draw([dims, rows], dtype).transpose();
    record(
      `rms norm of columns ${rows}x${dims} ${dtype}`,
      mx.fast.rmsNorm(turned, weight, 1e-5),
      byRow(valuesOf(turned), dims, (row) => norm(row, weights, 1e-5)),
    );
    const [sum, normed] = mx.fast.addRmsNorm(x, delta, weight, 1e-5);
    const sums = valuesOf(x.add(delta));
    record(`sum ${rows}x${dims} ${dtype}`, sum, sums);
    record(
      `norm of a sum ${rows}x${dims} ${dtype}`,
      normed,
      byRow(sums, dims, (row) => norm(row, weights, 1e-5)),
    );
  }
}

function turn(row: Float64Array, dims: number, position: number, base: number): Float64Array {
  const half = dims / 2;
  return row.map((value, i) => {
    if (i >= dims) return value;
    const angle = position / base ** ((i % half) / half);
    const other = i < half ? -row[i + half]! : row[i - half]!;
    return value * Math.cos(angle) + other * Math.sin(angle);
  });
}

function rotations(dtype: mx.Dtype): void {
  for (const [heads, length, dims, rotated, offset] of [
    [1, 1, 2, 2, 0],
    [3, 5, 20, 12, 7],
    [4, 40, 64, 64, 100],
    [2, 3, 128, 64, 0],
  ] as const) {
    // As a projection's output is split: heads of a token lie side by side.
    const x = draw([2, length, heads, dims], dtype).transpose(0, 2, 1, 3);
    record(
      `rope ${heads}x${length}x${dims} ${dtype}`,
      mx.fast.rope(x, rotated, { base: 10_000, offset }),
      byRow(valuesOf(x), dims, (row, i) => turn(row, rotated, offset + (i % length), 10_000)),
    );
  }
}

function gates(dtype: mx.Dtype): void {
  for (const [rows, dims] of [
    [1, 1],
    [3, 37],
    [1, 40_000],
    [20, 2816],
  ] as const) {
    const [gate, x] = mx.split(draw([1, rows, 2 * dims], dtype).multiply(3), 2, { axis: -1 }) as [mx.Tensor, mx.Tensor];
    const values = valuesOf(x);
    const silu = valuesOf(gate).map((g, i) => (g / (1 + Math.exp(-g))) * values[i]!);
    const gelu = valuesOf(gate).map(
      (g, i) => 0.5 * g * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (g + 0.044715 * g ** 3))) * values[i]!,
    );
    record(`swiglu ${rows}x${dims} ${dtype}`, swiglu(gate, x), silu);
    record(`geglu ${rows}x${dims} ${dtype}`, geglu(gate, x), gelu);
  }
}

function softmaxes(dtype: mx.Dtype): void {
  for (const [rows, dims] of [
    [1, 1],
    [3, 37],
    [20, 64],
    [2, 40_000],
  ] as const) {
    const x = draw([1, rows, dims], dtype).multiply(8);
    const turned = draw([dims, rows], dtype).transpose();
    const sumOf = (row: Float64Array) => {
      const most = Math.max(...row);
      return most + Math.log(row.reduce((sum, value) => sum + Math.exp(value - most), 0));
    };
    const soft = (row: Float64Array) => {
      const sum = sumOf(row);
      return row.map((value) => Math.exp(value - sum));
    };
    record(
      `softmax ${rows}x${dims} ${dtype}`,
      mx.softmax(x, { axis: -1, precise: true }),
      byRow(valuesOf(x), dims, soft),
    );
    record(
      `softmax of columns ${rows}x${dims} ${dtype}`,
      mx.softmax(turned, { axis: 1, precise: true }),
      byRow(valuesOf(turned), dims, soft),
    );
    const sums = byRow(valuesOf(x), dims, (row) => Float64Array.of(sumOf(row)));
    record(`logsumexp ${rows}x${dims} ${dtype}`, mx.logsumexp(x, { axis: -1 }), sums);
  }
}

/** softmax(q kᵀ · scale + mask) v, in doubles. */
function attended(
  [q, k, v]: readonly [mx.Tensor, mx.Tensor, mx.Tensor],
  scale: number,
  score: (batch: number, head: number, query: number, key: number, value: number) => number,
  sinks?: Float64Array,
): Float64Array {
  const [batch, heads, length, dims] = q.shape as [number, number, number, number];
  const [kvHeads, total] = [k.dim(1), k.dim(2)];
  const [queries, keys, values] = [valuesOf(q), valuesOf(k), valuesOf(v)];
  const out = new Float64Array(queries.length);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const shared = b * kvHeads + Math.floor(h / (heads / kvHeads));
      for (let t = 0; t < length; t++) {
        const row = ((b * heads + h) * length + t) * dims;
        const scores = Array.from({ length: total }, (_, s) => {
          let dot = 0;
          for (let d = 0; d < dims; d++) dot += queries[row + d]! * keys[(shared * total + s) * dims + d]!;
          return score(b, h, t, s, dot * scale);
        });
        const all = sinks ? [...scores, sinks[h]!] : scores;
        const most = Math.max(...all);
        const sum = all.reduce((total, one) => total + Math.exp(one - most), 0);
        for (let s = 0; s < total; s++) {
          const weight = Math.exp(scores[s]! - most) / sum;
          for (let d = 0; d < dims; d++) out[row + d]! += weight * values[(shared * total + s) * dims + d]!;
        }
      }
    }
  }
  return out;
}

function attentions(dtype: mx.Dtype): void {
  for (const [heads, kvHeads, length, total, dims] of [
    [1, 1, 1, 1, 16],
    [4, 2, 1, 70, 64],
    [7, 1, 1, 600, 80],
    [3, 3, 5, 5, 32],
    [4, 2, 70, 130, 64],
    [8, 1, 33, 100, 128],
    [2, 2, 200, 200, 256],
  ] as const) {
    const q = draw([2, length, heads, dims], dtype).transpose(0, 2, 1, 3);
    // As a cache holds them: in the middle of something longer.
    const held = () => draw([2, kvHeads, total + 9, dims], dtype).at(mx.ellipsis, mx.slice(4, 4 + total), mx.slice());
    const tensors = [q, held(), held()] as const;
    const scale = 1 / Math.sqrt(dims);
    const name = `${heads}/${kvHeads} heads ${length} of ${total} x${dims} ${dtype}`;
    const compute = (options: Partial<mx.fast.Attention>) =>
      mx.fast.scaledDotProductAttention(...tensors, { scale, ...options });
    const plain = (_b: number, _h: number, _t: number, _s: number, value: number) => value;
    record(`attention ${name}`, compute({}), attended(tensors, scale, plain));
    record(
      `causal attention ${name}`,
      compute({ mask: "causal" }),
      attended(tensors, scale, (_, __, t, s, value) => (s <= total - length + t ? value : -Infinity)),
    );
    const mask = mx.random.uniform({ shape: [2, 1, length, total] }).greater(0.3);
    const allowed = mask.toList() as boolean[][][][];
    record(
      `masked attention ${name}`,
      compute({ mask }),
      attended(tensors, scale, (b, _, t, s, value) => (allowed[b]![0]![t]![s] ? value : -1e4)),
    );
    const bias = draw([heads, length, total], dtype);
    const added = valuesOf(bias);
    record(
      `biased attention ${name}`,
      compute({ mask: bias }),
      attended(tensors, scale, (_, h, t, s, value) => value + added[(h * length + t) * total + s]!),
    );
    const sinks = draw([heads], dtype);
    record(`attention with sinks ${name}`, compute({ sinks }), attended(tensors, scale, plain, valuesOf(sinks)));
  }
}

const { geglu, swiglu } = await import("../src/nn");
mx.random.seed(7);
for (const dtype of dtypes) {
  mx.scope(() => {
    norms(dtype);
    rotations(dtype);
    gates(dtype);
    softmaxes(dtype);
    attentions(dtype);
  });
}
console.log(JSON.stringify(errors));
