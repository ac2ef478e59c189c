// Generated from vendor/mlx/ops.ts by vendor/mlx/generate.ts. Do not edit.
import { native } from "../library";
import { absentInt, beginMail, cString, writeInts, writeMaybeInts } from "../mailbox";
import { checked, type DtypeCode, type Handle, readHandles } from "../native";

export function abs(a: Handle): Handle {
  return checked(native.mlxlm_abs(a));
}

export function positive(a: Handle): Handle {
  return checked(native.mlxlm_positive(a));
}

export function negative(a: Handle): Handle {
  return checked(native.mlxlm_negative(a));
}

export function sign(a: Handle): Handle {
  return checked(native.mlxlm_sign(a));
}

export function logical_not(a: Handle): Handle {
  return checked(native.mlxlm_logical_not(a));
}

export function reciprocal(a: Handle): Handle {
  return checked(native.mlxlm_reciprocal(a));
}

export function floor(a: Handle): Handle {
  return checked(native.mlxlm_floor(a));
}

export function ceil(a: Handle): Handle {
  return checked(native.mlxlm_ceil(a));
}

export function trunc(a: Handle): Handle {
  return checked(native.mlxlm_trunc(a));
}

export function square(a: Handle): Handle {
  return checked(native.mlxlm_square(a));
}

export function exp(a: Handle): Handle {
  return checked(native.mlxlm_exp(a));
}

export function expm1(a: Handle): Handle {
  return checked(native.mlxlm_expm1(a));
}

export function sin(a: Handle): Handle {
  return checked(native.mlxlm_sin(a));
}

export function cos(a: Handle): Handle {
  return checked(native.mlxlm_cos(a));
}

export function tan(a: Handle): Handle {
  return checked(native.mlxlm_tan(a));
}

export function arcsin(a: Handle): Handle {
  return checked(native.mlxlm_arcsin(a));
}

export function arccos(a: Handle): Handle {
  return checked(native.mlxlm_arccos(a));
}

export function arctan(a: Handle): Handle {
  return checked(native.mlxlm_arctan(a));
}

export function sinh(a: Handle): Handle {
  return checked(native.mlxlm_sinh(a));
}

export function cosh(a: Handle): Handle {
  return checked(native.mlxlm_cosh(a));
}

export function tanh(a: Handle): Handle {
  return checked(native.mlxlm_tanh(a));
}

export function arcsinh(a: Handle): Handle {
  return checked(native.mlxlm_arcsinh(a));
}

export function arccosh(a: Handle): Handle {
  return checked(native.mlxlm_arccosh(a));
}

export function arctanh(a: Handle): Handle {
  return checked(native.mlxlm_arctanh(a));
}

export function degrees(a: Handle): Handle {
  return checked(native.mlxlm_degrees(a));
}

export function radians(a: Handle): Handle {
  return checked(native.mlxlm_radians(a));
}

export function log(a: Handle): Handle {
  return checked(native.mlxlm_log(a));
}

export function log2(a: Handle): Handle {
  return checked(native.mlxlm_log2(a));
}

export function log10(a: Handle): Handle {
  return checked(native.mlxlm_log10(a));
}

export function log1p(a: Handle): Handle {
  return checked(native.mlxlm_log1p(a));
}

export function sigmoid(a: Handle): Handle {
  return checked(native.mlxlm_sigmoid(a));
}

export function erf(a: Handle): Handle {
  return checked(native.mlxlm_erf(a));
}

export function erfinv(a: Handle): Handle {
  return checked(native.mlxlm_erfinv(a));
}

export function stop_gradient(a: Handle): Handle {
  return checked(native.mlxlm_stop_gradient(a));
}

export function sqrt(a: Handle): Handle {
  return checked(native.mlxlm_sqrt(a));
}

export function rsqrt(a: Handle): Handle {
  return checked(native.mlxlm_rsqrt(a));
}

export function bitwise_invert(a: Handle): Handle {
  return checked(native.mlxlm_bitwise_invert(a));
}

export function conjugate(a: Handle): Handle {
  return checked(native.mlxlm_conjugate(a));
}

export function real(a: Handle): Handle {
  return checked(native.mlxlm_real(a));
}

export function imag(a: Handle): Handle {
  return checked(native.mlxlm_imag(a));
}

export function isnan(a: Handle): Handle {
  return checked(native.mlxlm_isnan(a));
}

export function isinf(a: Handle): Handle {
  return checked(native.mlxlm_isinf(a));
}

export function isfinite(a: Handle): Handle {
  return checked(native.mlxlm_isfinite(a));
}

export function isposinf(a: Handle): Handle {
  return checked(native.mlxlm_isposinf(a));
}

export function isneginf(a: Handle): Handle {
  return checked(native.mlxlm_isneginf(a));
}

export function to_fp8(a: Handle): Handle {
  return checked(native.mlxlm_to_fp8(a));
}

export function add(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_add(a, b));
}

export function subtract(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_subtract(a, b));
}

export function multiply(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_multiply(a, b));
}

export function divide(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_divide(a, b));
}

export function floor_divide(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_floor_divide(a, b));
}

export function remainder(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_remainder(a, b));
}

export function power(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_power(a, b));
}

export function maximum(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_maximum(a, b));
}

export function minimum(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_minimum(a, b));
}

export function arctan2(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_arctan2(a, b));
}

export function logaddexp(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_logaddexp(a, b));
}

export function equal(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_equal(a, b));
}

export function not_equal(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_not_equal(a, b));
}

export function greater(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_greater(a, b));
}

export function greater_equal(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_greater_equal(a, b));
}

export function less(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_less(a, b));
}

export function less_equal(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_less_equal(a, b));
}

export function logical_and(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_logical_and(a, b));
}

export function logical_or(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_logical_or(a, b));
}

export function logical_xor(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_logical_xor(a, b));
}

export function bitwise_and(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_bitwise_and(a, b));
}

export function bitwise_or(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_bitwise_or(a, b));
}

export function bitwise_xor(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_bitwise_xor(a, b));
}

export function left_shift(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_left_shift(a, b));
}

export function right_shift(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_right_shift(a, b));
}

export function divmod(a: Handle, b: Handle): Handle[] {
  return readHandles(native.mlxlm_divmod(a, b));
}

export function round(a: Handle, decimals: number): Handle {
  return checked(native.mlxlm_round(a, decimals));
}

export function clip(a: Handle, min: Handle | null, max: Handle | null): Handle {
  return checked(native.mlxlm_clip(a, min ?? 0, max ?? 0));
}

export function where(condition: Handle, x: Handle, y: Handle): Handle {
  return checked(native.mlxlm_where(condition, x, y));
}

export function nan_to_num(a: Handle, nan: number, posinf: number | null, neginf: number | null): Handle {
  return checked(native.mlxlm_nan_to_num(a, nan, posinf ?? Number.NaN, neginf ?? Number.NaN));
}

export function isclose(a: Handle, b: Handle, rtol: number, atol: number, equalNan: boolean): Handle {
  return checked(native.mlxlm_isclose(a, b, rtol, atol, equalNan));
}

export function allclose(a: Handle, b: Handle, rtol: number, atol: number, equalNan: boolean): Handle {
  return checked(native.mlxlm_allclose(a, b, rtol, atol, equalNan));
}

export function array_equal(a: Handle, b: Handle, equalNan: boolean): Handle {
  return checked(native.mlxlm_array_equal(a, b, equalNan));
}

export function astype(a: Handle, dtype: DtypeCode): Handle {
  return checked(native.mlxlm_astype(a, dtype));
}

export function view(a: Handle, dtype: DtypeCode): Handle {
  return checked(native.mlxlm_view(a, dtype));
}

export function from_fp8(a: Handle, dtype: DtypeCode): Handle {
  return checked(native.mlxlm_from_fp8(a, dtype));
}

export function arange(start: number, stop: number, step: number, dtype: DtypeCode): Handle {
  return checked(native.mlxlm_arange(start, stop, step, dtype));
}

export function linspace(start: number, stop: number, num: number, endpoint: boolean, dtype: DtypeCode): Handle {
  return checked(native.mlxlm_linspace(start, stop, num, endpoint, dtype));
}

export function full(shape: readonly number[], value: Handle, dtype: DtypeCode): Handle {
  beginMail();
  return checked(native.mlxlm_full(writeInts(shape), value, dtype));
}

export function zeros(shape: readonly number[], dtype: DtypeCode): Handle {
  beginMail();
  return checked(native.mlxlm_zeros(writeInts(shape), dtype));
}

export function ones(shape: readonly number[], dtype: DtypeCode): Handle {
  beginMail();
  return checked(native.mlxlm_ones(writeInts(shape), dtype));
}

export function zeros_like(a: Handle): Handle {
  return checked(native.mlxlm_zeros_like(a));
}

export function ones_like(a: Handle): Handle {
  return checked(native.mlxlm_ones_like(a));
}

export function full_like(a: Handle, value: Handle, dtype: DtypeCode): Handle {
  return checked(native.mlxlm_full_like(a, value, dtype));
}

export function eye(n: number, m: number, k: number, dtype: DtypeCode): Handle {
  return checked(native.mlxlm_eye(n, m, k, dtype));
}

export function tri(n: number, m: number, k: number, dtype: DtypeCode): Handle {
  return checked(native.mlxlm_tri(n, m, k, dtype));
}

export function tril(a: Handle, k: number): Handle {
  return checked(native.mlxlm_tril(a, k));
}

export function triu(a: Handle, k: number): Handle {
  return checked(native.mlxlm_triu(a, k));
}

export function diag(a: Handle, k: number): Handle {
  return checked(native.mlxlm_diag(a, k));
}

export function diagonal(a: Handle, offset: number, axis1: number, axis2: number): Handle {
  return checked(native.mlxlm_diagonal(a, offset, axis1, axis2));
}

export function meshgrid(arrays: readonly Handle[], sparse: boolean, indexing: string): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_meshgrid(writeInts(arrays), sparse, cString(indexing)));
}

export function hanning(size: number): Handle {
  return checked(native.mlxlm_hanning(size));
}

export function hamming(size: number): Handle {
  return checked(native.mlxlm_hamming(size));
}

export function bartlett(size: number): Handle {
  return checked(native.mlxlm_bartlett(size));
}

export function blackman(size: number): Handle {
  return checked(native.mlxlm_blackman(size));
}

export function copy(a: Handle): Handle {
  return checked(native.mlxlm_copy(a));
}

export function contiguous(a: Handle, allowColMajor: boolean): Handle {
  return checked(native.mlxlm_contiguous(a, allowColMajor));
}

export function as_strided(a: Handle, shape: readonly number[], strides: readonly number[], offset: number): Handle {
  beginMail();
  return checked(native.mlxlm_as_strided(a, writeInts(shape), writeInts(strides), offset));
}

export function reshape(a: Handle, shape: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_reshape(a, writeInts(shape)));
}

export function flatten(a: Handle, startAxis: number, endAxis: number): Handle {
  return checked(native.mlxlm_flatten(a, startAxis, endAxis));
}

export function unflatten(a: Handle, axis: number, shape: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_unflatten(a, axis, writeInts(shape)));
}

export function squeeze(a: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_squeeze(a, writeInts(axes)));
}

export function squeeze_all(a: Handle): Handle {
  return checked(native.mlxlm_squeeze_all(a));
}

export function expand_dims(a: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_expand_dims(a, writeInts(axes)));
}

export function transpose(a: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_transpose(a, writeInts(axes)));
}

export function transpose_all(a: Handle): Handle {
  return checked(native.mlxlm_transpose_all(a));
}

export function matrix_transpose(a: Handle): Handle {
  return checked(native.mlxlm_matrix_transpose(a));
}

export function swapaxes(a: Handle, axis1: number, axis2: number): Handle {
  return checked(native.mlxlm_swapaxes(a, axis1, axis2));
}

export function moveaxis(a: Handle, source: number, destination: number): Handle {
  return checked(native.mlxlm_moveaxis(a, source, destination));
}

export function flip(a: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_flip(a, writeInts(axes)));
}

export function broadcast_to(a: Handle, shape: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_broadcast_to(a, writeInts(shape)));
}

export function broadcast_arrays(arrays: readonly Handle[]): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_broadcast_arrays(writeInts(arrays)));
}

export function atleast_1d(a: Handle): Handle {
  return checked(native.mlxlm_atleast_1d(a));
}

export function atleast_2d(a: Handle): Handle {
  return checked(native.mlxlm_atleast_2d(a));
}

export function atleast_3d(a: Handle): Handle {
  return checked(native.mlxlm_atleast_3d(a));
}

export function concatenate(arrays: readonly Handle[], axis: number): Handle {
  beginMail();
  return checked(native.mlxlm_concatenate(writeInts(arrays), axis));
}

export function stack(arrays: readonly Handle[], axis: number): Handle {
  beginMail();
  return checked(native.mlxlm_stack(writeInts(arrays), axis));
}

export function unstack(a: Handle, axis: number): Handle[] {
  return readHandles(native.mlxlm_unstack(a, axis));
}

export function split(a: Handle, indices: readonly number[], axis: number): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_split(a, writeInts(indices), axis));
}

export function split_equal(a: Handle, parts: number, axis: number): Handle[] {
  return readHandles(native.mlxlm_split_equal(a, parts, axis));
}

export function repeat(a: Handle, repeats: number, axis: number): Handle {
  return checked(native.mlxlm_repeat(a, repeats, axis));
}

export function tile(a: Handle, reps: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_tile(a, writeInts(reps)));
}

export function pad(a: Handle, axes: readonly number[], low: readonly number[], high: readonly number[], value: Handle, mode: string): Handle {
  beginMail();
  return checked(native.mlxlm_pad(a, writeInts(axes), writeInts(low), writeInts(high), value, cString(mode)));
}

export function roll(a: Handle, shift: readonly number[], axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_roll(a, writeInts(shift), writeInts(axes)));
}

export function roll_flat(a: Handle, shift: number): Handle {
  return checked(native.mlxlm_roll_flat(a, shift));
}

export function depends(inputs: readonly Handle[], dependencies: readonly Handle[]): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_depends(writeInts(inputs), writeInts(dependencies)));
}

export function slice(a: Handle, start: readonly number[], stop: readonly number[], strides: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_slice(a, writeInts(start), writeInts(stop), writeInts(strides)));
}

export function slice_dynamic(a: Handle, start: Handle, axes: readonly number[], size: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_slice_dynamic(a, start, writeInts(axes), writeInts(size)));
}

export function slice_update(a: Handle, update: Handle, start: readonly number[], stop: readonly number[], strides: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_slice_update(a, update, writeInts(start), writeInts(stop), writeInts(strides)));
}

export function slice_update_dynamic(a: Handle, update: Handle, start: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_slice_update_dynamic(a, update, start, writeInts(axes)));
}

export function slice_update_add(a: Handle, update: Handle, start: readonly number[], stop: readonly number[], strides: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_slice_update_add(a, update, writeInts(start), writeInts(stop), writeInts(strides)));
}

export function slice_update_prod(a: Handle, update: Handle, start: readonly number[], stop: readonly number[], strides: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_slice_update_prod(a, update, writeInts(start), writeInts(stop), writeInts(strides)));
}

export function slice_update_max(a: Handle, update: Handle, start: readonly number[], stop: readonly number[], strides: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_slice_update_max(a, update, writeInts(start), writeInts(stop), writeInts(strides)));
}

export function slice_update_min(a: Handle, update: Handle, start: readonly number[], stop: readonly number[], strides: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_slice_update_min(a, update, writeInts(start), writeInts(stop), writeInts(strides)));
}

export function take(a: Handle, indices: Handle, axis: number): Handle {
  return checked(native.mlxlm_take(a, indices, axis));
}

export function take_flat(a: Handle, indices: Handle): Handle {
  return checked(native.mlxlm_take_flat(a, indices));
}

export function take_along_axis(a: Handle, indices: Handle, axis: number): Handle {
  return checked(native.mlxlm_take_along_axis(a, indices, axis));
}

export function put_along_axis(a: Handle, indices: Handle, values: Handle, axis: number): Handle {
  return checked(native.mlxlm_put_along_axis(a, indices, values, axis));
}

export function scatter_add_axis(a: Handle, indices: Handle, values: Handle, axis: number): Handle {
  return checked(native.mlxlm_scatter_add_axis(a, indices, values, axis));
}

export function gather(a: Handle, indices: readonly Handle[], axes: readonly number[], sliceSizes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_gather(a, writeInts(indices), writeInts(axes), writeInts(sliceSizes)));
}

export function scatter(a: Handle, indices: readonly Handle[], updates: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_scatter(a, writeInts(indices), updates, writeInts(axes)));
}

export function scatter_add(a: Handle, indices: readonly Handle[], updates: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_scatter_add(a, writeInts(indices), updates, writeInts(axes)));
}

export function scatter_prod(a: Handle, indices: readonly Handle[], updates: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_scatter_prod(a, writeInts(indices), updates, writeInts(axes)));
}

export function scatter_max(a: Handle, indices: readonly Handle[], updates: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_scatter_max(a, writeInts(indices), updates, writeInts(axes)));
}

export function scatter_min(a: Handle, indices: readonly Handle[], updates: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_scatter_min(a, writeInts(indices), updates, writeInts(axes)));
}

export function masked_scatter(a: Handle, mask: Handle, src: Handle): Handle {
  return checked(native.mlxlm_masked_scatter(a, mask, src));
}

export function searchsorted(sorted: Handle, values: Handle, side: string): Handle {
  return checked(native.mlxlm_searchsorted(sorted, values, cString(side)));
}

export function all(a: Handle, axes: readonly number[], keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_all(a, writeInts(axes), keepdims));
}

export function any(a: Handle, axes: readonly number[], keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_any(a, writeInts(axes), keepdims));
}

export function sum(a: Handle, axes: readonly number[], keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_sum(a, writeInts(axes), keepdims));
}

export function mean(a: Handle, axes: readonly number[], keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_mean(a, writeInts(axes), keepdims));
}

export function prod(a: Handle, axes: readonly number[], keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_prod(a, writeInts(axes), keepdims));
}

export function max(a: Handle, axes: readonly number[], keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_max(a, writeInts(axes), keepdims));
}

export function min(a: Handle, axes: readonly number[], keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_min(a, writeInts(axes), keepdims));
}

export function median(a: Handle, axes: readonly number[], keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_median(a, writeInts(axes), keepdims));
}

export function count_nonzero(a: Handle, axes: readonly number[], keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_count_nonzero(a, writeInts(axes), keepdims));
}

export function logsumexp(a: Handle, axes: readonly number[], keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_logsumexp(a, writeInts(axes), keepdims));
}

export function minmax(a: Handle, axes: readonly number[], keepdims: boolean): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_minmax(a, writeInts(axes), keepdims));
}

export function variance(a: Handle, axes: readonly number[], keepdims: boolean, ddof: number): Handle {
  beginMail();
  return checked(native.mlxlm_var(a, writeInts(axes), keepdims, ddof));
}

export function std(a: Handle, axes: readonly number[], keepdims: boolean, ddof: number): Handle {
  beginMail();
  return checked(native.mlxlm_std(a, writeInts(axes), keepdims, ddof));
}

export function argmax(a: Handle, axis: number, keepdims: boolean): Handle {
  return checked(native.mlxlm_argmax(a, axis, keepdims));
}

export function argmax_flat(a: Handle, keepdims: boolean): Handle {
  return checked(native.mlxlm_argmax_flat(a, keepdims));
}

export function argmin(a: Handle, axis: number, keepdims: boolean): Handle {
  return checked(native.mlxlm_argmin(a, axis, keepdims));
}

export function argmin_flat(a: Handle, keepdims: boolean): Handle {
  return checked(native.mlxlm_argmin_flat(a, keepdims));
}

export function softmax(a: Handle, axes: readonly number[], precise: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_softmax(a, writeInts(axes), precise));
}

export function sort(a: Handle, axis: number): Handle {
  return checked(native.mlxlm_sort(a, axis));
}

export function argsort(a: Handle, axis: number): Handle {
  return checked(native.mlxlm_argsort(a, axis));
}

export function partition(a: Handle, kth: number, axis: number): Handle {
  return checked(native.mlxlm_partition(a, kth, axis));
}

export function argpartition(a: Handle, kth: number, axis: number): Handle {
  return checked(native.mlxlm_argpartition(a, kth, axis));
}

export function topk(a: Handle, k: number, axis: number): Handle {
  return checked(native.mlxlm_topk(a, k, axis));
}

export function unique(a: Handle, size: number, returnIndex: boolean, returnInverse: boolean, returnCounts: boolean, fill: Handle | null): Handle[] {
  return readHandles(native.mlxlm_unique(a, size, returnIndex, returnInverse, returnCounts, fill ?? 0));
}

export function cumsum(a: Handle, axis: number, reverse: boolean, inclusive: boolean, dtype: DtypeCode | null): Handle {
  return checked(native.mlxlm_cumsum(a, axis, reverse, inclusive, dtype ?? absentInt));
}

export function cumprod(a: Handle, axis: number, reverse: boolean, inclusive: boolean, dtype: DtypeCode | null): Handle {
  return checked(native.mlxlm_cumprod(a, axis, reverse, inclusive, dtype ?? absentInt));
}

export function cummax(a: Handle, axis: number, reverse: boolean, inclusive: boolean): Handle {
  return checked(native.mlxlm_cummax(a, axis, reverse, inclusive));
}

export function cummin(a: Handle, axis: number, reverse: boolean, inclusive: boolean): Handle {
  return checked(native.mlxlm_cummin(a, axis, reverse, inclusive));
}

export function logcumsumexp(a: Handle, axis: number, reverse: boolean, inclusive: boolean): Handle {
  return checked(native.mlxlm_logcumsumexp(a, axis, reverse, inclusive));
}

export function diff(a: Handle, n: number, axis: number): Handle {
  return checked(native.mlxlm_diff(a, n, axis));
}

export function trace(a: Handle, offset: number, axis1: number, axis2: number): Handle {
  return checked(native.mlxlm_trace(a, offset, axis1, axis2));
}

export function number_of_elements(a: Handle, axes: readonly number[], inverted: boolean, dtype: DtypeCode): Handle {
  beginMail();
  return checked(native.mlxlm_number_of_elements(a, writeInts(axes), inverted, dtype));
}

export function matmul(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_matmul(a, b));
}

export function outer(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_outer(a, b));
}

export function inner(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_inner(a, b));
}

export function kron(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_kron(a, b));
}

export function vecdot(a: Handle, b: Handle, axis: number): Handle {
  return checked(native.mlxlm_vecdot(a, b, axis));
}

export function addmm(c: Handle, a: Handle, b: Handle, alpha: number, beta: number): Handle {
  return checked(native.mlxlm_addmm(c, a, b, alpha, beta));
}

export function tensordot(a: Handle, b: Handle, axesA: readonly number[], axesB: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_tensordot(a, b, writeInts(axesA), writeInts(axesB)));
}

export function einsum(subscripts: string, operands: readonly Handle[]): Handle {
  beginMail();
  return checked(native.mlxlm_einsum(cString(subscripts), writeInts(operands)));
}

export function hadamard_transform(a: Handle, scale: number | null): Handle {
  return checked(native.mlxlm_hadamard_transform(a, scale ?? Number.NaN));
}

export function block_masked_mm(a: Handle, b: Handle, blockSize: number, maskOut: Handle | null, maskLhs: Handle | null, maskRhs: Handle | null): Handle {
  return checked(native.mlxlm_block_masked_mm(a, b, blockSize, maskOut ?? 0, maskLhs ?? 0, maskRhs ?? 0));
}

export function segmented_mm(a: Handle, b: Handle, segments: Handle): Handle {
  return checked(native.mlxlm_segmented_mm(a, b, segments));
}

export function gather_mm(a: Handle, b: Handle, lhsIndices: Handle | null, rhsIndices: Handle | null, sortedIndices: boolean): Handle {
  return checked(native.mlxlm_gather_mm(a, b, lhsIndices ?? 0, rhsIndices ?? 0, sortedIndices));
}

export function conv_general(input: Handle, weight: Handle, stride: readonly number[], paddingLow: readonly number[], paddingHigh: readonly number[], kernelDilation: readonly number[], inputDilation: readonly number[], groups: number, flip: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_conv_general(input, weight, writeInts(stride), writeInts(paddingLow), writeInts(paddingHigh), writeInts(kernelDilation), writeInts(inputDilation), groups, flip));
}

export function conv1d(input: Handle, weight: Handle, stride: number, padding: number, dilation: number, groups: number): Handle {
  return checked(native.mlxlm_conv1d(input, weight, stride, padding, dilation, groups));
}

export function conv2d(input: Handle, weight: Handle, stride: readonly number[], padding: readonly number[], dilation: readonly number[], groups: number): Handle {
  beginMail();
  return checked(native.mlxlm_conv2d(input, weight, writeInts(stride), writeInts(padding), writeInts(dilation), groups));
}

export function conv3d(input: Handle, weight: Handle, stride: readonly number[], padding: readonly number[], dilation: readonly number[], groups: number): Handle {
  beginMail();
  return checked(native.mlxlm_conv3d(input, weight, writeInts(stride), writeInts(padding), writeInts(dilation), groups));
}

export function conv_transpose1d(input: Handle, weight: Handle, stride: number, padding: number, dilation: number, outputPadding: number, groups: number): Handle {
  return checked(native.mlxlm_conv_transpose1d(input, weight, stride, padding, dilation, outputPadding, groups));
}

export function conv_transpose2d(input: Handle, weight: Handle, stride: readonly number[], padding: readonly number[], dilation: readonly number[], outputPadding: readonly number[], groups: number): Handle {
  beginMail();
  return checked(native.mlxlm_conv_transpose2d(input, weight, writeInts(stride), writeInts(padding), writeInts(dilation), writeInts(outputPadding), groups));
}

export function conv_transpose3d(input: Handle, weight: Handle, stride: readonly number[], padding: readonly number[], dilation: readonly number[], outputPadding: readonly number[], groups: number): Handle {
  beginMail();
  return checked(native.mlxlm_conv_transpose3d(input, weight, writeInts(stride), writeInts(padding), writeInts(dilation), writeInts(outputPadding), groups));
}

export function quantize(w: Handle, groupSize: number | null, bits: number | null, mode: string, globalScale: Handle | null): Handle[] {
  return readHandles(native.mlxlm_quantize(w, groupSize ?? absentInt, bits ?? absentInt, cString(mode), globalScale ?? 0));
}

export function dequantize(w: Handle, scales: Handle, biases: Handle | null, groupSize: number | null, bits: number | null, mode: string, globalScale: Handle | null, dtype: DtypeCode | null): Handle {
  return checked(native.mlxlm_dequantize(w, scales, biases ?? 0, groupSize ?? absentInt, bits ?? absentInt, cString(mode), globalScale ?? 0, dtype ?? absentInt));
}

export function quantized_matmul(x: Handle, w: Handle, scales: Handle, biases: Handle | null, transpose: boolean, groupSize: number | null, bits: number | null, mode: string): Handle {
  return checked(native.mlxlm_quantized_matmul(x, w, scales, biases ?? 0, transpose, groupSize ?? absentInt, bits ?? absentInt, cString(mode)));
}

export function qqmm(x: Handle, w: Handle, scales: Handle | null, groupSize: number | null, bits: number | null, mode: string, globalScaleX: Handle | null, globalScaleW: Handle | null): Handle {
  return checked(native.mlxlm_qqmm(x, w, scales ?? 0, groupSize ?? absentInt, bits ?? absentInt, cString(mode), globalScaleX ?? 0, globalScaleW ?? 0));
}

export function gather_qmm(x: Handle, w: Handle, scales: Handle, biases: Handle | null, lhsIndices: Handle | null, rhsIndices: Handle | null, transpose: boolean, groupSize: number | null, bits: number | null, mode: string, globalScale: Handle | null, sortedIndices: boolean): Handle {
  return checked(native.mlxlm_gather_qmm(x, w, scales, biases ?? 0, lhsIndices ?? 0, rhsIndices ?? 0, transpose, groupSize ?? absentInt, bits ?? absentInt, cString(mode), globalScale ?? 0, sortedIndices));
}

export function gather_qqmm(x: Handle, w: Handle, scales: Handle | null, lhsIndices: Handle | null, rhsIndices: Handle | null, groupSize: number | null, bits: number | null, mode: string, globalScaleX: Handle | null, globalScaleW: Handle | null, sortedIndices: boolean): Handle {
  return checked(native.mlxlm_gather_qqmm(x, w, scales ?? 0, lhsIndices ?? 0, rhsIndices ?? 0, groupSize ?? absentInt, bits ?? absentInt, cString(mode), globalScaleX ?? 0, globalScaleW ?? 0, sortedIndices));
}

export function block_matmul(x: Handle, w: Handle, type: number): Handle {
  return checked(native.mlxlm_block_matmul(x, w, type));
}

export function gather_block_mm(x: Handle, w: Handle, indices: Handle, type: number): Handle {
  return checked(native.mlxlm_gather_block_mm(x, w, indices, type));
}

export function unpack_blocks(w: Handle, type: number, dtype: DtypeCode): Handle {
  return checked(native.mlxlm_unpack_blocks(w, type, dtype));
}

export function block_vectors(type: number): Handle {
  return checked(native.mlxlm_block_vectors(type));
}

export function fast_rms_norm(x: Handle, weight: Handle | null, eps: number): Handle {
  return checked(native.mlxlm_fast_rms_norm(x, weight ?? 0, eps));
}

export function fast_layer_norm(x: Handle, weight: Handle | null, bias: Handle | null, eps: number): Handle {
  return checked(native.mlxlm_fast_layer_norm(x, weight ?? 0, bias ?? 0, eps));
}

export function fast_cross_entropy(logits: Handle, targets: Handle): Handle {
  return checked(native.mlxlm_fast_cross_entropy(logits, targets));
}

export function fast_rope(x: Handle, dims: number, traditional: boolean, base: number | null, scale: number, offset: number, freqs: Handle | null): Handle {
  return checked(native.mlxlm_fast_rope(x, dims, traditional, base ?? Number.NaN, scale, offset, freqs ?? 0));
}

export function fast_rope_at(x: Handle, dims: number, traditional: boolean, base: number | null, scale: number, offset: Handle, freqs: Handle | null): Handle {
  return checked(native.mlxlm_fast_rope_at(x, dims, traditional, base ?? Number.NaN, scale, offset, freqs ?? 0));
}

export function fast_scaled_dot_product_attention(q: Handle, k: Handle, v: Handle, scale: number, mode: string, mask: Handle | null, sinks: Handle | null, forceFused: boolean): Handle {
  return checked(native.mlxlm_fast_scaled_dot_product_attention(q, k, v, scale, cString(mode), mask ?? 0, sinks ?? 0, forceFused));
}

export function fast_gated_delta_update(q: Handle, k: Handle, v: Handle, gates: Handle, beta: Handle, state: Handle | null, mask: Handle | null): Handle[] {
  return readHandles(native.mlxlm_fast_gated_delta_update(q, k, v, gates, beta, state ?? 0, mask ?? 0));
}

export function rms_norm(x: Handle, weight: Handle | null, eps: number): Handle {
  return checked(native.mlxlm_rms_norm(x, weight ?? 0, eps));
}

export function scaled_dot_product_attention(q: Handle, k: Handle, v: Handle, scale: number, mode: string, mask: Handle | null, sinks: Handle | null): Handle {
  return checked(native.mlxlm_scaled_dot_product_attention(q, k, v, scale, cString(mode), mask ?? 0, sinks ?? 0));
}

export function rotate(x: Handle, dims: number, base: number | null, scale: number, offset: number, freqs: Handle | null): Handle[] {
  return readHandles(native.mlxlm_rotate(x, dims, base ?? Number.NaN, scale, offset, freqs ?? 0));
}

export function gate(gelu: boolean, gate: Handle, x: Handle): Handle[] {
  return readHandles(native.mlxlm_gate(gelu, gate, x));
}

export function mask_logits(logits: Handle, bits: Handle): Handle {
  return checked(native.mlxlm_mask_logits(logits, bits));
}

export function cross_entropy(logits: Handle, targets: Handle): Handle[] {
  return readHandles(native.mlxlm_cross_entropy(logits, targets));
}

export function low_rank(base: Handle, x: Handle, a: Handle, b: Handle, scale: number): Handle[] {
  return readHandles(native.mlxlm_low_rank(base, x, a, b, scale));
}

export function slice_axis(a: Handle, axis: number, start: number, stop: number): Handle {
  return checked(native.mlxlm_slice_axis(a, axis, start, stop));
}

export function update_axis(a: Handle, update: Handle, axis: number, start: number): Handle {
  return checked(native.mlxlm_update_axis(a, update, axis, start));
}

export function add_rms_norm(x: Handle, delta: Handle, weight: Handle, eps: number): Handle[] {
  return readHandles(native.mlxlm_add_rms_norm(x, delta, weight, eps));
}

export function rotate_heads(joint: Handle, heads: number, kvHeads: number, queryWeight: Handle | null, keyWeight: Handle | null, eps: number, rotated: number, base: number | null, scale: number, offset: number, freqs: Handle | null): Handle[] {
  return readHandles(native.mlxlm_rotate_heads(joint, heads, kvHeads, queryWeight ?? 0, keyWeight ?? 0, eps, rotated, base ?? Number.NaN, scale, offset, freqs ?? 0));
}

export function experts_token(x: Handle, experts: Handle, weights: Handle, stacks: readonly number[]): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_experts_token(x, experts, weights, writeInts(stacks)));
}

export function route_tokens(logits: Handle, count: number, normalize: boolean): Handle[] {
  return readHandles(native.mlxlm_route_tokens(logits, count, normalize));
}

export function feed_token(x: Handle, feed: readonly number[]): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_feed_token(x, writeInts(feed)));
}

export function attend_token(x: Handle, keys: Handle, values: Handle, used: number, row: number, offset: number, attention: readonly number[]): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_attend_token(x, keys, values, used, row, offset, writeInts(attention)));
}

export function attend_rows(joint: Handle, keys: Handle, values: Handle, used: number, starts: readonly number[], positions: readonly number[], heads: readonly number[]): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_attend_rows(joint, keys, values, used, writeInts(starts), writeInts(positions), writeInts(heads)));
}

export function layer_token(x: Handle, delta: Handle | null, keys: Handle, values: Handle, used: number, row: number, offset: number, layer: readonly number[]): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_layer_token(x, delta ?? 0, keys, values, used, row, offset, writeInts(layer)));
}

export function layer_rows(x: Handle, delta: Handle | null, keys: Handle, values: Handle, used: number, starts: readonly number[], positions: readonly number[], layer: readonly number[]): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_layer_rows(x, delta ?? 0, keys, values, used, writeInts(starts), writeInts(positions), writeInts(layer)));
}

export function short_conv(x: Handle, opening: Handle | null, gate: Handle | null, before: Handle | null, weight: Handle, bias: Handle | null, own: Handle | null, lengths: readonly number[], silu: boolean): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_short_conv(x, opening ?? 0, gate ?? 0, before ?? 0, weight, bias ?? 0, own ?? 0, writeInts(lengths), silu));
}

export function delta_layer(entering: Handle, gate: Handle, strength: Handle, decay: Handle, before: Handle | null, convWeight: Handle, rates: Handle, decayBias: Handle, weight: Handle, state: Handle | null, own: Handle | null, lengths: readonly number[], keyHeads: number, eps: number): Handle[] {
  beginMail();
  return readHandles(native.mlxlm_delta_layer(entering, gate, strength, decay, before ?? 0, convWeight, rates, decayBias, weight, state ?? 0, own ?? 0, writeInts(lengths), keyHeads, eps));
}

export function recurrence(queries: Handle, keys: Handle, values: Handle, decay: Handle, strength: Handle | null, readers: Handle | null, changes: Handle | null, state: Handle | null, own: Handle | null, queryLength: number, keyLength: number): Handle[] {
  return readHandles(native.mlxlm_recurrence(queries, keys, values, decay, strength ?? 0, readers ?? 0, changes ?? 0, state ?? 0, own ?? 0, queryLength, keyLength));
}

export function state_space(mixed: Handle, steps: Handle, gate: Handle | null, rates: Handle, passing: Handle, stepBias: Handle, state: Handle | null, own: Handle | null, groups: number, headDims: number, leastStep: number, mostStep: number): Handle[] {
  return readHandles(native.mlxlm_state_space(mixed, steps, gate ?? 0, rates, passing, stepBias, state ?? 0, own ?? 0, groups, headDims, leastStep, mostStep));
}

export function selective_scan(x: Handle, steps: Handle, entering: Handle, reading: Handle, gate: Handle, rates: Handle, passing: Handle, state: Handle | null, own: Handle | null): Handle[] {
  return readHandles(native.mlxlm_selective_scan(x, steps, entering, reading, gate, rates, passing, state ?? 0, own ?? 0));
}

export function random_key(seed: number): Handle {
  return checked(native.mlxlm_random_key(seed));
}

export function random_split(key: Handle, num: number): Handle {
  return checked(native.mlxlm_random_split(key, num));
}

export function random_split_pair(key: Handle): Handle[] {
  return readHandles(native.mlxlm_random_split_pair(key));
}

export function random_bits(shape: readonly number[], width: number, key: Handle | null): Handle {
  beginMail();
  return checked(native.mlxlm_random_bits(writeInts(shape), width, key ?? 0));
}

export function random_uniform(low: Handle, high: Handle, shape: readonly number[], dtype: DtypeCode, key: Handle | null): Handle {
  beginMail();
  return checked(native.mlxlm_random_uniform(low, high, writeInts(shape), dtype, key ?? 0));
}

export function random_normal(shape: readonly number[], dtype: DtypeCode, loc: Handle | null, scale: Handle | null, key: Handle | null): Handle {
  beginMail();
  return checked(native.mlxlm_random_normal(writeInts(shape), dtype, loc ?? 0, scale ?? 0, key ?? 0));
}

export function random_multivariate_normal(mean: Handle, cov: Handle, shape: readonly number[], dtype: DtypeCode, key: Handle | null): Handle {
  beginMail();
  return checked(native.mlxlm_random_multivariate_normal(mean, cov, writeInts(shape), dtype, key ?? 0));
}

export function random_randint(low: Handle, high: Handle, shape: readonly number[], dtype: DtypeCode, key: Handle | null): Handle {
  beginMail();
  return checked(native.mlxlm_random_randint(low, high, writeInts(shape), dtype, key ?? 0));
}

export function random_bernoulli(p: Handle, shape: readonly number[], key: Handle | null): Handle {
  beginMail();
  return checked(native.mlxlm_random_bernoulli(p, writeInts(shape), key ?? 0));
}

export function random_truncated_normal(lower: Handle, upper: Handle, shape: readonly number[], dtype: DtypeCode, key: Handle | null): Handle {
  beginMail();
  return checked(native.mlxlm_random_truncated_normal(lower, upper, writeInts(shape), dtype, key ?? 0));
}

export function random_gumbel(shape: readonly number[], dtype: DtypeCode, key: Handle | null): Handle {
  beginMail();
  return checked(native.mlxlm_random_gumbel(writeInts(shape), dtype, key ?? 0));
}

export function random_laplace(shape: readonly number[], dtype: DtypeCode, loc: number, scale: number, key: Handle | null): Handle {
  beginMail();
  return checked(native.mlxlm_random_laplace(writeInts(shape), dtype, loc, scale, key ?? 0));
}

export function random_categorical(logits: Handle, axis: number, key: Handle | null): Handle {
  return checked(native.mlxlm_random_categorical(logits, axis, key ?? 0));
}

export function random_categorical_shape(logits: Handle, axis: number, shape: readonly number[], key: Handle | null): Handle {
  beginMail();
  return checked(native.mlxlm_random_categorical_shape(logits, axis, writeInts(shape), key ?? 0));
}

export function random_categorical_samples(logits: Handle, axis: number, numSamples: number, key: Handle | null): Handle {
  return checked(native.mlxlm_random_categorical_samples(logits, axis, numSamples, key ?? 0));
}

export function random_permutation(a: Handle, axis: number, key: Handle | null): Handle {
  return checked(native.mlxlm_random_permutation(a, axis, key ?? 0));
}

export function random_permutation_range(size: number, key: Handle | null): Handle {
  return checked(native.mlxlm_random_permutation_range(size, key ?? 0));
}

export function linalg_norm(a: Handle, axes: readonly number[] | null, keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_linalg_norm(a, writeMaybeInts(axes), keepdims));
}

export function linalg_norm_ord(a: Handle, ord: number, axes: readonly number[] | null, keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_linalg_norm_ord(a, ord, writeMaybeInts(axes), keepdims));
}

export function linalg_norm_named(a: Handle, ord: string, axes: readonly number[] | null, keepdims: boolean): Handle {
  beginMail();
  return checked(native.mlxlm_linalg_norm_named(a, cString(ord), writeMaybeInts(axes), keepdims));
}

export function linalg_qr(a: Handle): Handle[] {
  return readHandles(native.mlxlm_linalg_qr(a));
}

export function linalg_svd(a: Handle, computeUV: boolean): Handle[] {
  return readHandles(native.mlxlm_linalg_svd(a, computeUV));
}

export function linalg_inv(a: Handle): Handle {
  return checked(native.mlxlm_linalg_inv(a));
}

export function linalg_tri_inv(a: Handle, upper: boolean): Handle {
  return checked(native.mlxlm_linalg_tri_inv(a, upper));
}

export function linalg_cholesky(a: Handle, upper: boolean): Handle {
  return checked(native.mlxlm_linalg_cholesky(a, upper));
}

export function linalg_cholesky_inv(a: Handle, upper: boolean): Handle {
  return checked(native.mlxlm_linalg_cholesky_inv(a, upper));
}

export function linalg_pinv(a: Handle): Handle {
  return checked(native.mlxlm_linalg_pinv(a));
}

export function linalg_lu(a: Handle): Handle[] {
  return readHandles(native.mlxlm_linalg_lu(a));
}

export function linalg_lu_factor(a: Handle): Handle[] {
  return readHandles(native.mlxlm_linalg_lu_factor(a));
}

export function linalg_solve(a: Handle, b: Handle): Handle {
  return checked(native.mlxlm_linalg_solve(a, b));
}

export function linalg_solve_triangular(a: Handle, b: Handle, upper: boolean): Handle {
  return checked(native.mlxlm_linalg_solve_triangular(a, b, upper));
}

export function linalg_cross(a: Handle, b: Handle, axis: number): Handle {
  return checked(native.mlxlm_linalg_cross(a, b, axis));
}

export function linalg_eig(a: Handle): Handle[] {
  return readHandles(native.mlxlm_linalg_eig(a));
}

export function linalg_eigvals(a: Handle): Handle {
  return checked(native.mlxlm_linalg_eigvals(a));
}

export function linalg_eigh(a: Handle, uplo: string): Handle[] {
  return readHandles(native.mlxlm_linalg_eigh(a, cString(uplo)));
}

export function linalg_eigvalsh(a: Handle, uplo: string): Handle {
  return checked(native.mlxlm_linalg_eigvalsh(a, cString(uplo)));
}

export function linalg_det(a: Handle): Handle {
  return checked(native.mlxlm_linalg_det(a));
}

export function linalg_slogdet(a: Handle): Handle[] {
  return readHandles(native.mlxlm_linalg_slogdet(a));
}

export function fft_fftn(a: Handle, n: readonly number[], axes: readonly number[], norm: number): Handle {
  beginMail();
  return checked(native.mlxlm_fft_fftn(a, writeInts(n), writeInts(axes), norm));
}

export function fft_fftn_axes(a: Handle, axes: readonly number[], norm: number): Handle {
  beginMail();
  return checked(native.mlxlm_fft_fftn_axes(a, writeInts(axes), norm));
}

export function fft_fftn_all(a: Handle, norm: number): Handle {
  return checked(native.mlxlm_fft_fftn_all(a, norm));
}

export function fft_ifftn(a: Handle, n: readonly number[], axes: readonly number[], norm: number): Handle {
  beginMail();
  return checked(native.mlxlm_fft_ifftn(a, writeInts(n), writeInts(axes), norm));
}

export function fft_ifftn_axes(a: Handle, axes: readonly number[], norm: number): Handle {
  beginMail();
  return checked(native.mlxlm_fft_ifftn_axes(a, writeInts(axes), norm));
}

export function fft_ifftn_all(a: Handle, norm: number): Handle {
  return checked(native.mlxlm_fft_ifftn_all(a, norm));
}

export function fft_rfftn(a: Handle, n: readonly number[], axes: readonly number[], norm: number): Handle {
  beginMail();
  return checked(native.mlxlm_fft_rfftn(a, writeInts(n), writeInts(axes), norm));
}

export function fft_rfftn_axes(a: Handle, axes: readonly number[], norm: number): Handle {
  beginMail();
  return checked(native.mlxlm_fft_rfftn_axes(a, writeInts(axes), norm));
}

export function fft_rfftn_all(a: Handle, norm: number): Handle {
  return checked(native.mlxlm_fft_rfftn_all(a, norm));
}

export function fft_irfftn(a: Handle, n: readonly number[], axes: readonly number[], norm: number): Handle {
  beginMail();
  return checked(native.mlxlm_fft_irfftn(a, writeInts(n), writeInts(axes), norm));
}

export function fft_irfftn_axes(a: Handle, axes: readonly number[], norm: number): Handle {
  beginMail();
  return checked(native.mlxlm_fft_irfftn_axes(a, writeInts(axes), norm));
}

export function fft_irfftn_all(a: Handle, norm: number): Handle {
  return checked(native.mlxlm_fft_irfftn_all(a, norm));
}

export function fft_fftfreq(n: number, d: number): Handle {
  return checked(native.mlxlm_fft_fftfreq(n, d));
}

export function fft_rfftfreq(n: number, d: number): Handle {
  return checked(native.mlxlm_fft_rfftfreq(n, d));
}

export function fft_fftshift(a: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_fft_fftshift(a, writeInts(axes)));
}

export function fft_ifftshift(a: Handle, axes: readonly number[]): Handle {
  beginMail();
  return checked(native.mlxlm_fft_ifftshift(a, writeInts(axes)));
}

export function fft_stft(x: Handle, nFft: number, hopLength: number | null, winLength: number | null, window: Handle | null, center: boolean, padMode: string, norm: number, onesided: boolean | null): Handle {
  return checked(native.mlxlm_fft_stft(x, nFft, hopLength ?? absentInt, winLength ?? absentInt, window ?? 0, center, cString(padMode), norm, onesided === null ? absentInt : Number(onesided)));
}

export function fft_istft(x: Handle, nFft: number | null, hopLength: number | null, winLength: number | null, window: Handle | null, center: boolean, norm: number, onesided: boolean | null, length: number | null): Handle {
  return checked(native.mlxlm_fft_istft(x, nFft ?? absentInt, hopLength ?? absentInt, winLength ?? absentInt, window ?? 0, center, norm, onesided === null ? absentInt : Number(onesided), length ?? absentInt));
}

export function distributed_all_sum(x: Handle, group: number | null): Handle {
  return checked(native.mlxlm_distributed_all_sum(x, group ?? -1));
}

export function distributed_all_gather(x: Handle, group: number | null): Handle {
  return checked(native.mlxlm_distributed_all_gather(x, group ?? -1));
}

export function distributed_all_max(x: Handle, group: number | null): Handle {
  return checked(native.mlxlm_distributed_all_max(x, group ?? -1));
}

export function distributed_all_min(x: Handle, group: number | null): Handle {
  return checked(native.mlxlm_distributed_all_min(x, group ?? -1));
}

export function distributed_sum_scatter(x: Handle, group: number | null): Handle {
  return checked(native.mlxlm_distributed_sum_scatter(x, group ?? -1));
}

export function distributed_send(x: Handle, destination: number, group: number | null): Handle {
  return checked(native.mlxlm_distributed_send(x, destination, group ?? -1));
}

export function distributed_recv(shape: readonly number[], dtype: DtypeCode, source: number, group: number | null): Handle {
  beginMail();
  return checked(native.mlxlm_distributed_recv(writeInts(shape), dtype, source, group ?? -1));
}

export function distributed_recv_like(x: Handle, source: number, group: number | null): Handle {
  return checked(native.mlxlm_distributed_recv_like(x, source, group ?? -1));
}
