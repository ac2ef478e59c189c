/** A checkpoint's tensors held against what a model's `sanitize` is about to do with them. */
import { UserError } from "../errors";
import type { Tensor } from "../mlx";

const hint = "Check that config.json and the weights belong together.";

/** @throws UserError that names the tensor, where its shape is another */
export function needShape(name: string, tensor: Tensor, expected: readonly number[]): void {
  if (tensor.ndim === expected.length && tensor.shape.every((dim, i) => dim === expected[i])) return;
  const shapes = `is (${tensor.shape.join(", ")}), expected (${expected.join(", ")})`;
  throw new UserError(`the weights do not fit the model: ${name} ${shapes}`, { hint });
}

/** @throws UserError that names the tensor, where it is of another dtype */
export function needDtype(name: string, { dtype }: Tensor, expected: string): void {
  if (dtype === expected) return;
  throw new UserError(`the weights do not fit the model: ${name} is ${dtype}, expected ${expected}`, { hint });
}
