/** Layers behind a model's last one, which predict further tokens (multi-token prediction). */
import type { Tensor } from "../../mlx";

/** A checkpoint's tensors but those of the layers behind the first `count`. */
export function withoutDraftLayers(weights: Map<string, Tensor>, count: number): Map<string, Tensor> {
  const isOwn = (name: string) => Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? 0) < count;
  return new Map([...weights].filter(([name]) => isOwn(name)));
}
