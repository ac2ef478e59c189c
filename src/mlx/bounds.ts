/**
 * Bounds of index lists. MLX's gather and scatter check none on the CPU: an index out of range corrupts the heap. What
 * is known on the host is checked here; tensors of indices are the caller's promise.
 */
import { array } from "./creation";
import { Tensor } from "./tensor";

/** An index list as an int32 tensor. @throws RangeError for an index outside [-size, size) */
export function checkedIndices(
  indices: Tensor | number | readonly number[],
  size: () => number,
  axis?: number,
): Tensor {
  if (indices instanceof Tensor) return indices;
  const limit = size();
  if (typeof indices === "number") {
    checkIndex(indices, limit, axis);
    return array(indices, "int32");
  }
  for (const index of indices) checkIndex(index, limit, axis);
  return array(indices, "int32", [indices.length]);
}

/** @throws RangeError for an index that is no integer in [-size, size) */
export function checkIndex(index: number, size: number, axis?: number): void {
  if (!Number.isInteger(index) || index < -size || index >= size) {
    const where = axis === undefined ? "" : ` of axis ${axis}`;
    throw new RangeError(`index ${index} is out of bounds for size ${size}${where}`);
  }
}
