/**
 * The op table: one line an op. From it come the C++ wrapper, the bun:ffi symbol and the typed TypeScript call
 * (`generate.ts`), so the three cannot drift.
 *
 * `cxx` is the name in MLX's headers (namespace mlx::core), `args` the arguments as the header has them, in order,
 * less the trailing stream, `result` what comes back. An overload gets a name of its own with `as`.
 */
export interface Op {
  cxx: string;
  /** The name in the ABI and in TypeScript, unique: `fast::rope` → `fast_rope`. */
  name: string;
  args: Arg[];
  result: Result;
  /** Whether MLX's function takes a stream as its last argument. */
  stream: boolean;
  /** Whether the function is ours (src/ours.h, namespace mlxlm), not MLX's. */
  ours: boolean;
}

export const argKinds = [
  "array",
  "array?",
  "array[]",
  "ints",
  "ints?",
  "shape",
  "strides",
  "pair",
  "triple",
  "int",
  "int?",
  "float",
  "float?",
  "double",
  "bool",
  "bool?",
  "string",
  "dtype",
  "dtype?",
  "seed",
  "norm",
  "group?",
] as const;

export type ArgKind = (typeof argKinds)[number];
export interface Arg {
  name: string;
  kind: ArgKind;
}

/** `pair`: a std::pair or std::tuple of arrays; comes back as an array[] like a vector does. */
export type Result = "array" | "array[]" | "pair" | "void";

function op(
  cxx: string,
  args: string,
  result: Result,
  options: { as?: string; stream?: boolean; ours?: boolean } = {},
): Op {
  const parse = (text: string): Arg => {
    const [name, kind] = text.split(":").map((part) => part.trim());
    if (!name || !argKinds.includes(kind as ArgKind)) throw new Error(`op table: ${cxx}: bad argument "${text}"`);
    return { name, kind: kind as ArgKind };
  };
  return {
    cxx,
    name: options.as ?? cxx.replaceAll("::", "_"),
    args: args === "" ? [] : args.split(",").map(parse),
    result,
    stream: options.stream ?? true,
    ours: options.ours ?? false,
  };
}

const unary = (...names: string[]) => names.map((name) => op(name, "a: array", "array"));
const binary = (...names: string[]) => names.map((name) => op(name, "a: array, b: array", "array"));
const reduction = (...names: string[]) =>
  names.map((name) => op(name, "a: array, axes: ints, keepdims: bool", "array"));

const elementwise = [
  ...unary(
    ..."abs positive negative sign logical_not reciprocal floor ceil trunc square exp expm1".split(" "),
    ..."sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh degrees radians".split(" "),
    ..."log log2 log10 log1p sigmoid erf erfinv stop_gradient sqrt rsqrt bitwise_invert conjugate real imag".split(" "),
    ..."isnan isinf isfinite isposinf isneginf to_fp8".split(" "),
  ),
  ...binary(
    ..."add subtract multiply divide floor_divide remainder power maximum minimum arctan2 logaddexp".split(" "),
    ..."equal not_equal greater greater_equal less less_equal logical_and logical_or logical_xor".split(" "),
    ..."bitwise_and bitwise_or bitwise_xor left_shift right_shift".split(" "),
  ),
  op("divmod", "a: array, b: array", "array[]"),
  op("round", "a: array, decimals: int", "array"),
  op("clip", "a: array, min: array?, max: array?", "array"),
  op("where", "condition: array, x: array, y: array", "array"),
  op("nan_to_num", "a: array, nan: float, posinf: float?, neginf: float?", "array"),
  op("isclose", "a: array, b: array, rtol: double, atol: double, equalNan: bool", "array"),
  op("allclose", "a: array, b: array, rtol: double, atol: double, equalNan: bool", "array"),
  op("array_equal", "a: array, b: array, equalNan: bool", "array"),
  op("astype", "a: array, dtype: dtype", "array"),
  op("view", "a: array, dtype: dtype", "array"),
  op("from_fp8", "a: array, dtype: dtype", "array"),
];

const creation = [
  op("arange", "start: double, stop: double, step: double, dtype: dtype", "array"),
  op("linspace", "start: double, stop: double, num: int, endpoint: bool, dtype: dtype", "array"),
  op("full", "shape: shape, value: array, dtype: dtype", "array"),
  op("zeros", "shape: shape, dtype: dtype", "array"),
  op("ones", "shape: shape, dtype: dtype", "array"),
  op("zeros_like", "a: array", "array"),
  op("ones_like", "a: array", "array"),
  op("full_like", "a: array, value: array, dtype: dtype", "array"),
  op("eye", "n: int, m: int, k: int, dtype: dtype", "array"),
  op("tri", "n: int, m: int, k: int, dtype: dtype", "array"),
  op("tril", "a: array, k: int", "array"),
  op("triu", "a: array, k: int", "array"),
  op("diag", "a: array, k: int", "array"),
  op("diagonal", "a: array, offset: int, axis1: int, axis2: int", "array"),
  op("meshgrid", "arrays: array[], sparse: bool, indexing: string", "array[]"),
  ...["hanning", "hamming", "bartlett", "blackman"].map((name) => op(name, "size: int", "array")),
];

const shaping = [
  op("copy", "a: array", "array"),
  op("contiguous", "a: array, allowColMajor: bool", "array"),
  op("as_strided", "a: array, shape: shape, strides: strides, offset: int", "array"),
  op("reshape", "a: array, shape: shape", "array"),
  op("flatten", "a: array, startAxis: int, endAxis: int", "array"),
  op("unflatten", "a: array, axis: int, shape: shape", "array"),
  op("squeeze", "a: array, axes: ints", "array"),
  op("squeeze", "a: array", "array", { as: "squeeze_all" }),
  op("expand_dims", "a: array, axes: ints", "array"),
  op("transpose", "a: array, axes: ints", "array"),
  op("transpose", "a: array", "array", { as: "transpose_all" }),
  op("matrix_transpose", "a: array", "array"),
  op("swapaxes", "a: array, axis1: int, axis2: int", "array"),
  op("moveaxis", "a: array, source: int, destination: int", "array"),
  op("flip", "a: array, axes: ints", "array"),
  op("broadcast_to", "a: array, shape: shape", "array"),
  op("broadcast_arrays", "arrays: array[]", "array[]"),
  op("atleast_1d", "a: array", "array"),
  op("atleast_2d", "a: array", "array"),
  op("atleast_3d", "a: array", "array"),
  op("concatenate", "arrays: array[], axis: int", "array"),
  op("stack", "arrays: array[], axis: int", "array"),
  op("unstack", "a: array, axis: int", "array[]"),
  op("split", "a: array, indices: shape, axis: int", "array[]", { ours: true }),
  op("split", "a: array, parts: int, axis: int", "array[]", { as: "split_equal", ours: true }),
  op("repeat", "a: array, repeats: int, axis: int", "array"),
  op("tile", "a: array, reps: ints", "array"),
  op("pad", "a: array, axes: ints, low: shape, high: shape, value: array, mode: string", "array"),
  op("roll", "a: array, shift: shape, axes: ints", "array"),
  op("roll", "a: array, shift: int", "array", { as: "roll_flat" }),
  op("depends", "inputs: array[], dependencies: array[]", "array[]", { stream: false }),
];

const indexing = [
  op("slice", "a: array, start: shape, stop: shape, strides: shape", "array", { ours: true }),
  op("slice", "a: array, start: array, axes: ints, size: shape", "array", { as: "slice_dynamic" }),
  op("slice_update", "a: array, update: array, start: shape, stop: shape, strides: shape", "array"),
  op("slice_update", "a: array, update: array, start: array, axes: ints", "array", { as: "slice_update_dynamic" }),
  ...["add", "prod", "max", "min"].map((kind) =>
    op(`slice_update_${kind}`, "a: array, update: array, start: shape, stop: shape, strides: shape", "array"),
  ),
  op("take", "a: array, indices: array, axis: int", "array"),
  op("take", "a: array, indices: array", "array", { as: "take_flat" }),
  op("take_along_axis", "a: array, indices: array, axis: int", "array"),
  op("put_along_axis", "a: array, indices: array, values: array, axis: int", "array"),
  op("scatter_add_axis", "a: array, indices: array, values: array, axis: int", "array"),
  op("gather", "a: array, indices: array[], axes: ints, sliceSizes: shape", "array"),
  ...["scatter", "scatter_add", "scatter_prod", "scatter_max", "scatter_min"].map((name) =>
    op(name, "a: array, indices: array[], updates: array, axes: ints", "array"),
  ),
  op("masked_scatter", "a: array, mask: array, src: array", "array"),
  op("searchsorted", "sorted: array, values: array, side: string", "array"),
];

const reductions = [
  ...reduction(..."all any sum mean prod max min median count_nonzero".split(" ")),
  op("logsumexp", "a: array, axes: ints, keepdims: bool", "array", { ours: true }),
  op("minmax", "a: array, axes: ints, keepdims: bool", "pair"),
  op("var", "a: array, axes: ints, keepdims: bool, ddof: int", "array"),
  op("std", "a: array, axes: ints, keepdims: bool, ddof: int", "array"),
  op("argmax", "a: array, axis: int, keepdims: bool", "array", { ours: true }),
  op("argmax", "a: array, keepdims: bool", "array", { as: "argmax_flat" }),
  op("argmin", "a: array, axis: int, keepdims: bool", "array"),
  op("argmin", "a: array, keepdims: bool", "array", { as: "argmin_flat" }),
  op("softmax", "a: array, axes: ints, precise: bool", "array", { ours: true }),
  op("sort", "a: array, axis: int", "array"),
  op("argsort", "a: array, axis: int", "array"),
  op("partition", "a: array, kth: int, axis: int", "array"),
  op("argpartition", "a: array, kth: int, axis: int", "array"),
  op("topk", "a: array, k: int, axis: int", "array"),
  op(
    "unique",
    "a: array, size: int, returnIndex: bool, returnInverse: bool, returnCounts: bool, fill: array?",
    "array[]",
  ),
  op("cumsum", "a: array, axis: int, reverse: bool, inclusive: bool, dtype: dtype?", "array"),
  op("cumprod", "a: array, axis: int, reverse: bool, inclusive: bool, dtype: dtype?", "array"),
  op("cummax", "a: array, axis: int, reverse: bool, inclusive: bool", "array"),
  op("cummin", "a: array, axis: int, reverse: bool, inclusive: bool", "array"),
  op("logcumsumexp", "a: array, axis: int, reverse: bool, inclusive: bool", "array"),
  op("diff", "a: array, n: int, axis: int", "array"),
  op("trace", "a: array, offset: int, axis1: int, axis2: int", "array"),
  op("number_of_elements", "a: array, axes: ints, inverted: bool, dtype: dtype", "array"),
];

const products = [
  op("matmul", "a: array, b: array", "array", { ours: true }),
  ...binary("outer", "inner", "kron"),
  op("vecdot", "a: array, b: array, axis: int", "array"),
  op("addmm", "c: array, a: array, b: array, alpha: float, beta: float", "array"),
  op("tensordot", "a: array, b: array, axesA: ints, axesB: ints", "array"),
  op("einsum", "subscripts: string, operands: array[]", "array"),
  op("hadamard_transform", "a: array, scale: float?", "array"),
  op(
    "block_masked_mm",
    "a: array, b: array, blockSize: int, maskOut: array?, maskLhs: array?, maskRhs: array?",
    "array",
  ),
  op("segmented_mm", "a: array, b: array, segments: array", "array"),
  op("gather_mm", "a: array, b: array, lhsIndices: array?, rhsIndices: array?, sortedIndices: bool", "array", {
    ours: true,
  }),
  op(
    "conv_general",
    "input: array, weight: array, stride: ints, paddingLow: ints, paddingHigh: ints, kernelDilation: ints, inputDilation: ints, groups: int, flip: bool",
    "array",
  ),
  op("conv1d", "input: array, weight: array, stride: int, padding: int, dilation: int, groups: int", "array"),
  op("conv2d", "input: array, weight: array, stride: pair, padding: pair, dilation: pair, groups: int", "array"),
  op("conv3d", "input: array, weight: array, stride: triple, padding: triple, dilation: triple, groups: int", "array"),
  op(
    "conv_transpose1d",
    "input: array, weight: array, stride: int, padding: int, dilation: int, outputPadding: int, groups: int",
    "array",
  ),
  op(
    "conv_transpose2d",
    "input: array, weight: array, stride: pair, padding: pair, dilation: pair, outputPadding: pair, groups: int",
    "array",
  ),
  op(
    "conv_transpose3d",
    "input: array, weight: array, stride: triple, padding: triple, dilation: triple, outputPadding: triple, groups: int",
    "array",
  ),
];

const quantized = [
  op("quantize", "w: array, groupSize: int?, bits: int?, mode: string, globalScale: array?", "array[]"),
  op(
    "dequantize",
    "w: array, scales: array, biases: array?, groupSize: int?, bits: int?, mode: string, globalScale: array?, dtype: dtype?",
    "array",
  ),
  op(
    "quantized_matmul",
    "x: array, w: array, scales: array, biases: array?, transpose: bool, groupSize: int?, bits: int?, mode: string",
    "array",
    { ours: true },
  ),
  op(
    "qqmm",
    "x: array, w: array, scales: array?, groupSize: int?, bits: int?, mode: string, globalScaleX: array?, globalScaleW: array?",
    "array",
  ),
  op(
    "gather_qmm",
    "x: array, w: array, scales: array, biases: array?, lhsIndices: array?, rhsIndices: array?, transpose: bool, groupSize: int?, bits: int?, mode: string, globalScale: array?, sortedIndices: bool",
    "array",
    { ours: true },
  ),
  op(
    "gather_qqmm",
    "x: array, w: array, scales: array?, lhsIndices: array?, rhsIndices: array?, groupSize: int?, bits: int?, mode: string, globalScaleX: array?, globalScaleW: array?, sortedIndices: bool",
    "array",
  ),
];

/** Products with matrices in ggml's blocks. */
const blocks = [
  op("block_matmul", "x: array, w: array, type: int", "array", { ours: true }),
  op("gather_block_mm", "x: array, w: array, indices: array, type: int", "array", { ours: true }),
  op("unpack_blocks", "w: array, type: int, dtype: dtype", "array", { ours: true }),
  op("block_vectors", "type: int", "array", { ours: true }),
];

const fast = [
  op("fast::rms_norm", "x: array, weight: array?, eps: float", "array"),
  op("fast::layer_norm", "x: array, weight: array?, bias: array?, eps: float", "array"),
  op("fast::cross_entropy", "logits: array, targets: array", "array"),
  op(
    "fast::rope",
    "x: array, dims: int, traditional: bool, base: float?, scale: float, offset: int, freqs: array?",
    "array",
  ),
  op(
    "fast::rope",
    "x: array, dims: int, traditional: bool, base: float?, scale: float, offset: array, freqs: array?",
    "array",
    { as: "fast_rope_at" },
  ),
  op(
    "fast::scaled_dot_product_attention",
    "q: array, k: array, v: array, scale: float, mode: string, mask: array?, sinks: array?, forceFused: bool",
    "array",
  ),
  op(
    "fast::gated_delta_update",
    "q: array, k: array, v: array, gates: array, beta: array, state: array?, mask: array?",
    "array[]",
  ),
];

const ours = [
  op("rms_norm", "x: array, weight: array?, eps: float", "array", { ours: true }),
  op(
    "scaled_dot_product_attention",
    "q: array, k: array, v: array, scale: float, mode: string, mask: array?, sinks: array?",
    "array",
    { ours: true },
  ),
  op("rotate", "x: array, dims: int, base: float?, scale: float, offset: int, freqs: array?", "array[]", {
    ours: true,
  }),
  op("gate", "gelu: bool, gate: array, x: array", "array[]", { ours: true }),
  op("mask_logits", "logits: array, bits: array", "array", { ours: true }),
  op("cross_entropy", "logits: array, targets: array", "array[]", { ours: true }),
  op("low_rank", "base: array, x: array, a: array, b: array, scale: float", "array[]", { ours: true }),
  op("slice_axis", "a: array, axis: int, start: int, stop: int", "array", { ours: true }),
  op("update_axis", "a: array, update: array, axis: int, start: int", "array", { ours: true }),
  op("add_rms_norm", "x: array, delta: array, weight: array, eps: float", "array[]", { ours: true }),
  op(
    "rotate_heads",
    "joint: array, heads: int, kvHeads: int, queryWeight: array?, keyWeight: array?, eps: float, rotated: int, base: float?, scale: float, offset: int, freqs: array?",
    "array[]",
    { ours: true },
  ),
  op("experts_token", "x: array, experts: array, weights: array, stacks: ints", "array[]", { ours: true }),
  op("route_tokens", "logits: array, count: int, normalize: bool", "array[]", { ours: true }),
  op("feed_token", "x: array, feed: ints", "array[]", { ours: true }),
  op(
    "attend_token",
    "x: array, keys: array, values: array, used: int, row: int, offset: int, attention: ints",
    "array[]",
    { ours: true },
  ),
  op(
    "attend_rows",
    "joint: array, keys: array, values: array, used: int, starts: ints, positions: ints, heads: ints",
    "array[]",
    { ours: true },
  ),
  op(
    "layer_token",
    "x: array, delta: array?, keys: array, values: array, used: int, row: int, offset: int, layer: ints",
    "array[]",
    { ours: true },
  ),
  op(
    "layer_rows",
    "x: array, delta: array?, keys: array, values: array, used: int, starts: ints, positions: ints, layer: ints",
    "array[]",
    { ours: true },
  ),
];

const recurrent = [
  op(
    "short_conv",
    "x: array, opening: array?, gate: array?, before: array?, weight: array, bias: array?, own: array?, lengths: ints, silu: bool",
    "array[]",
    { ours: true },
  ),
  op(
    "delta_layer",
    "entering: array, gate: array, strength: array, decay: array, before: array?, convWeight: array, rates: array, decayBias: array, weight: array, state: array?, own: array?, lengths: ints, keyHeads: int, eps: float",
    "array[]",
    { ours: true },
  ),
  op(
    "recurrence",
    "queries: array, keys: array, values: array, decay: array, strength: array?, readers: array?, changes: array?, state: array?, own: array?, queryLength: float, keyLength: float",
    "array[]",
    { ours: true },
  ),
  op(
    "state_space",
    "mixed: array, steps: array, gate: array?, rates: array, passing: array, stepBias: array, state: array?, own: array?, groups: int, headDims: int, leastStep: float, mostStep: float",
    "array[]",
    { ours: true },
  ),
  op(
    "selective_scan",
    "x: array, steps: array, entering: array, reading: array, gate: array, rates: array, passing: array, state: array?, own: array?",
    "array[]",
    { ours: true },
  ),
];

const random = [
  op("random::key", "seed: seed", "array", { stream: false }),
  op("random::split", "key: array, num: int", "array"),
  op("random::split", "key: array", "pair", { as: "random_split_pair" }),
  op("random::bits", "shape: shape, width: int, key: array?", "array"),
  op("random::uniform", "low: array, high: array, shape: shape, dtype: dtype, key: array?", "array"),
  op("random::normal", "shape: shape, dtype: dtype, loc: array?, scale: array?, key: array?", "array"),
  op("random::multivariate_normal", "mean: array, cov: array, shape: shape, dtype: dtype, key: array?", "array"),
  op("random::randint", "low: array, high: array, shape: shape, dtype: dtype, key: array?", "array"),
  op("random::bernoulli", "p: array, shape: shape, key: array?", "array"),
  op("random::truncated_normal", "lower: array, upper: array, shape: shape, dtype: dtype, key: array?", "array"),
  op("random::gumbel", "shape: shape, dtype: dtype, key: array?", "array"),
  op("random::laplace", "shape: shape, dtype: dtype, loc: float, scale: float, key: array?", "array"),
  op("random::categorical", "logits: array, axis: int, key: array?", "array"),
  op("random::categorical", "logits: array, axis: int, shape: shape, key: array?", "array", {
    as: "random_categorical_shape",
  }),
  op("random::categorical", "logits: array, axis: int, numSamples: int, key: array?", "array", {
    as: "random_categorical_samples",
  }),
  op("random::permutation", "a: array, axis: int, key: array?", "array"),
  op("random::permutation", "size: int, key: array?", "array", { as: "random_permutation_range" }),
];

const linalg = [
  op("linalg::norm", "a: array, axes: ints?, keepdims: bool", "array"),
  op("linalg::norm", "a: array, ord: double, axes: ints?, keepdims: bool", "array", { as: "linalg_norm_ord" }),
  op("linalg::norm", "a: array, ord: string, axes: ints?, keepdims: bool", "array", { as: "linalg_norm_named" }),
  op("linalg::qr", "a: array", "pair"),
  op("linalg::svd", "a: array, computeUV: bool", "array[]"),
  op("linalg::inv", "a: array", "array"),
  op("linalg::tri_inv", "a: array, upper: bool", "array"),
  op("linalg::cholesky", "a: array, upper: bool", "array"),
  op("linalg::cholesky_inv", "a: array, upper: bool", "array"),
  op("linalg::pinv", "a: array", "array"),
  op("linalg::lu", "a: array", "array[]"),
  op("linalg::lu_factor", "a: array", "pair"),
  op("linalg::solve", "a: array, b: array", "array"),
  op("linalg::solve_triangular", "a: array, b: array, upper: bool", "array"),
  op("linalg::cross", "a: array, b: array, axis: int", "array"),
  op("linalg::eig", "a: array", "pair"),
  op("linalg::eigvals", "a: array", "array"),
  op("linalg::eigh", "a: array, uplo: string", "pair"),
  op("linalg::eigvalsh", "a: array, uplo: string", "array"),
  op("linalg::det", "a: array", "array"),
  op("linalg::slogdet", "a: array", "pair"),
];

const fft = [
  ...["fftn", "ifftn", "rfftn", "irfftn"].flatMap((name) => [
    op(`fft::${name}`, "a: array, n: shape, axes: ints, norm: norm", "array"),
    op(`fft::${name}`, "a: array, axes: ints, norm: norm", "array", { as: `fft_${name}_axes` }),
    op(`fft::${name}`, "a: array, norm: norm", "array", { as: `fft_${name}_all` }),
  ]),
  op("fft::fftfreq", "n: int, d: double", "array"),
  op("fft::rfftfreq", "n: int, d: double", "array"),
  op("fft::fftshift", "a: array, axes: ints", "array"),
  op("fft::ifftshift", "a: array, axes: ints", "array"),
  op(
    "fft::stft",
    "x: array, nFft: int, hopLength: int?, winLength: int?, window: array?, center: bool, padMode: string, norm: norm, onesided: bool?",
    "array",
  ),
  op(
    "fft::istft",
    "x: array, nFft: int?, hopLength: int?, winLength: int?, window: array?, center: bool, norm: norm, onesided: bool?, length: int?",
    "array",
  ),
];

const distributed = [
  ...["all_sum", "all_gather"].map((name) =>
    op(name, "x: array, group: group?", "array", { as: `distributed_${name}`, ours: true }),
  ),
  ...["all_max", "all_min", "sum_scatter"].map((name) =>
    op(`distributed::${name}`, "x: array, group: group?", "array"),
  ),
  op("distributed::send", "x: array, destination: int, group: group?", "array"),
  op("distributed::recv", "shape: shape, dtype: dtype, source: int, group: group?", "array"),
  op("distributed::recv_like", "x: array, source: int, group: group?", "array"),
];

export const ops: readonly Op[] = [
  ...elementwise,
  ...creation,
  ...shaping,
  ...indexing,
  ...reductions,
  ...products,
  ...quantized,
  ...blocks,
  ...fast,
  ...ours,
  ...recurrent,
  ...random,
  ...linalg,
  ...fft,
  ...distributed,
];
