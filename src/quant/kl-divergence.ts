/** How far one prediction is from another. Kullback & Leibler 1951, doi:10.1214/aoms/1177729694. */
import type { Tensor } from "../mlx";

/** log softmax */
function logProbabilities(logits: Tensor): Tensor {
  return logits.subtract(logits.logsumexp({ axis: -1, keepdims: true }));
}

/**
 * KL(teacher ‖ student) at each position: logits (…, V) of both → (…). In the logits' dtype, as mlx-lm's; the gradient
 * is the student's.
 */
export function klDivergence(student: Tensor, teacher: Tensor): Tensor {
  const [q, p] = [logProbabilities(student), logProbabilities(teacher)];
  return p.exp().multiply(p.subtract(q)).sum({ axis: -1 });
}
