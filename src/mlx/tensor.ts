/** The tensor: a handle on an MLX array, its facts, and the operations that read well as methods. */

import { type Dtype, dtypeOf, itemSize } from "./dtype";
import * as elementwise from "./elementwise";
import { type HostArray, type NestedList, readArray, readList } from "./host";
import { type Index, indexInto, indexUpdate } from "./indexing";
import { native } from "./library";
import { mail, numberMail } from "./mailbox";
import { checked, type Handle } from "./native";
import type { Operand } from "./operand";
import * as products from "./products";
import * as reductions from "./reductions";
import * as shaping from "./shaping";

/**
 * An n-dimensional array, lazy until it is read or evaluated. Immutable: what Python writes as `x[i] = v` is
 * `x = x.put([i], v)`. Made inside a `scope`, it is freed when the scope ends unless it is returned or kept.
 */
export class Tensor {
  private facts: { shape: readonly number[]; dtype: Dtype } | null = null;

  /** Wraps a handle of the native table; ops do this, user code makes tensors with `array`, `zeros` and the like. */
  constructor(readonly handle: Handle) {}

  private describe(): { shape: readonly number[]; dtype: Dtype } {
    const rank = checked(native.mlxlm_describe(this.handle));
    const shape = new Array<number>(rank);
    for (let i = 0; i < rank; i++) shape[i] = mail[i + 1]!;
    this.facts = { shape, dtype: dtypeOf(mail[0]!) };
    return this.facts;
  }

  get shape(): readonly number[] {
    return (this.facts ?? this.describe()).shape;
  }

  get dtype(): Dtype {
    return (this.facts ?? this.describe()).dtype;
  }

  get ndim(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  get size(): number {
    let size = 1;
    for (const dim of this.shape) size *= dim;
    return size;
  }

  /** Bytes that the elements take. */
  get nbytes(): number {
    return this.size * itemSize(this.dtype);
  }

  /** The size of one axis; negative axes count from the end. @throws RangeError where there is no such axis */
  dim(axis: number): number {
    const size = this.shape.at(axis);
    if (size === undefined) throw new RangeError(`axis ${axis} of a tensor with shape (${this.shape.join(", ")})`);
    return size;
  }

  /** All axes reversed. */
  get T(): Tensor {
    return shaping.transpose(this);
  }

  // ---- values on the host: these evaluate

  /** The one element, as a number. @throws MlxError where there is more than one */
  item(): number {
    checked(native.mlxlm_item(this.handle));
    return numberMail[0]!;
  }

  /** A copy of all elements in row-major order; float16 and bfloat16 come as float32, complex as pairs. */
  toArray(): HostArray {
    return readArray(this);
  }

  /** The elements as nested JavaScript arrays (a number for a scalar). */
  toList(): NestedList {
    return readList(this);
  }

  toString(): string {
    return `Tensor(${this.dtype}, (${this.shape.join(", ")}))`;
  }

  /** Frees the tensor now. Rarely needed: scopes do it. */
  dispose(): void {
    checked(native.mlxlm_free(this.handle));
  }

  // ---- indexing

  /** `x[index]`: numbers, `slice(…)`, `all`, `ellipsis`, `newaxis`, lists of numbers, tensors of integers. */
  at(...index: Index[]): Tensor {
    return indexInto(this, index);
  }

  /** `x[index] = value`, as a new tensor; the value is broadcast. */
  put(index: Index | Index[], value: Operand): Tensor {
    return indexUpdate(this, index, value, "set");
  }

  /** `x.at[index].add(value)`: repeated indices add up. */
  addAt(index: Index | Index[], value: Operand): Tensor {
    return indexUpdate(this, index, value, "add");
  }

  subtractAt(index: Index | Index[], value: Operand): Tensor {
    return indexUpdate(this, index, value, "subtract");
  }

  multiplyAt(index: Index | Index[], value: Operand): Tensor {
    return indexUpdate(this, index, value, "multiply");
  }

  divideAt(index: Index | Index[], value: Operand): Tensor {
    return indexUpdate(this, index, value, "divide");
  }

  maximumAt(index: Index | Index[], value: Operand): Tensor {
    return indexUpdate(this, index, value, "maximum");
  }

  minimumAt(index: Index | Index[], value: Operand): Tensor {
    return indexUpdate(this, index, value, "minimum");
  }

  // ---- elementwise

  add(b: Operand): Tensor {
    return elementwise.add(this, b);
  }
  subtract(b: Operand): Tensor {
    return elementwise.subtract(this, b);
  }
  multiply(b: Operand): Tensor {
    return elementwise.multiply(this, b);
  }
  divide(b: Operand): Tensor {
    return elementwise.divide(this, b);
  }
  floorDivide(b: Operand): Tensor {
    return elementwise.floorDivide(this, b);
  }
  remainder(b: Operand): Tensor {
    return elementwise.remainder(this, b);
  }
  power(b: Operand): Tensor {
    return elementwise.power(this, b);
  }
  maximum(b: Operand): Tensor {
    return elementwise.maximum(this, b);
  }
  minimum(b: Operand): Tensor {
    return elementwise.minimum(this, b);
  }
  equal(b: Operand): Tensor {
    return elementwise.equal(this, b);
  }
  notEqual(b: Operand): Tensor {
    return elementwise.notEqual(this, b);
  }
  greater(b: Operand): Tensor {
    return elementwise.greater(this, b);
  }
  greaterEqual(b: Operand): Tensor {
    return elementwise.greaterEqual(this, b);
  }
  less(b: Operand): Tensor {
    return elementwise.less(this, b);
  }
  lessEqual(b: Operand): Tensor {
    return elementwise.lessEqual(this, b);
  }
  logicalAnd(b: Operand): Tensor {
    return elementwise.logicalAnd(this, b);
  }
  logicalOr(b: Operand): Tensor {
    return elementwise.logicalOr(this, b);
  }
  bitwiseAnd(b: Operand): Tensor {
    return elementwise.bitwiseAnd(this, b);
  }
  bitwiseOr(b: Operand): Tensor {
    return elementwise.bitwiseOr(this, b);
  }
  leftShift(b: Operand): Tensor {
    return elementwise.leftShift(this, b);
  }
  rightShift(b: Operand): Tensor {
    return elementwise.rightShift(this, b);
  }
  negative(): Tensor {
    return elementwise.negative(this);
  }
  abs(): Tensor {
    return elementwise.abs(this);
  }
  exp(): Tensor {
    return elementwise.exp(this);
  }
  log(): Tensor {
    return elementwise.log(this);
  }
  sqrt(): Tensor {
    return elementwise.sqrt(this);
  }
  rsqrt(): Tensor {
    return elementwise.rsqrt(this);
  }
  square(): Tensor {
    return elementwise.square(this);
  }
  sigmoid(): Tensor {
    return elementwise.sigmoid(this);
  }
  tanh(): Tensor {
    return elementwise.tanh(this);
  }
  sin(): Tensor {
    return elementwise.sin(this);
  }
  cos(): Tensor {
    return elementwise.cos(this);
  }
  sign(): Tensor {
    return elementwise.sign(this);
  }
  floor(): Tensor {
    return elementwise.floor(this);
  }
  ceil(): Tensor {
    return elementwise.ceil(this);
  }
  round(decimals = 0): Tensor {
    return elementwise.round(this, decimals);
  }
  logicalNot(): Tensor {
    return elementwise.logicalNot(this);
  }
  astype(dtype: Dtype): Tensor {
    return elementwise.astype(this, dtype);
  }
  view(dtype: Dtype): Tensor {
    return elementwise.view(this, dtype);
  }
  matmul(b: Tensor): Tensor {
    return products.matmul(this, b);
  }

  // ---- reductions

  sum(options?: reductions.Reduce): Tensor {
    return reductions.sum(this, options);
  }
  mean(options?: reductions.Reduce): Tensor {
    return reductions.mean(this, options);
  }
  prod(options?: reductions.Reduce): Tensor {
    return reductions.prod(this, options);
  }
  max(options?: reductions.Reduce): Tensor {
    return reductions.max(this, options);
  }
  min(options?: reductions.Reduce): Tensor {
    return reductions.min(this, options);
  }
  any(options?: reductions.Reduce): Tensor {
    return reductions.any(this, options);
  }
  all(options?: reductions.Reduce): Tensor {
    return reductions.all(this, options);
  }
  logsumexp(options?: reductions.Reduce): Tensor {
    return reductions.logsumexp(this, options);
  }
  variance(options?: reductions.Spread): Tensor {
    return reductions.variance(this, options);
  }
  std(options?: reductions.Spread): Tensor {
    return reductions.std(this, options);
  }
  argmax(options?: reductions.ArgReduce): Tensor {
    return reductions.argmax(this, options);
  }
  argmin(options?: reductions.ArgReduce): Tensor {
    return reductions.argmin(this, options);
  }
  cumsum(axis: number, options?: reductions.Scan): Tensor {
    return reductions.cumsum(this, { axis, ...options });
  }

  // ---- shape

  reshape(...dims: number[] | [readonly number[]]): Tensor {
    return shaping.reshape(this, dims.flat() as number[]);
  }
  transpose(...axes: number[]): Tensor {
    return shaping.transpose(this, axes.length > 0 ? axes : undefined);
  }
  swapaxes(axis1: number, axis2: number): Tensor {
    return shaping.swapaxes(this, axis1, axis2);
  }
  moveaxis(source: number, destination: number): Tensor {
    return shaping.moveaxis(this, source, destination);
  }
  squeeze(axes?: number | readonly number[]): Tensor {
    return shaping.squeeze(this, axes);
  }
  expandDims(axes: number | readonly number[]): Tensor {
    return shaping.expandDims(this, axes);
  }
  flatten(startAxis = 0, endAxis = -1): Tensor {
    return shaping.flatten(this, startAxis, endAxis);
  }
  unflatten(axis: number, shape: readonly number[]): Tensor {
    return shaping.unflatten(this, axis, shape);
  }
  broadcastTo(shape: readonly number[]): Tensor {
    return shaping.broadcastTo(this, shape);
  }
  split(parts: number | readonly number[], axis = 0): Tensor[] {
    return shaping.split(this, parts, { axis });
  }
  take(indices: Tensor | number | readonly number[], axis?: number): Tensor {
    return shaping.take(this, indices, { axis });
  }
  takeAlongAxis(indices: Tensor, axis: number): Tensor {
    return shaping.takeAlongAxis(this, indices, { axis });
  }
}
