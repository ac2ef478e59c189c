/** Experts as checkpoints have them, and stacked as the layers of `switch.ts` take them. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { needShape } from "./checkpoint-shapes";

/** The names of the projections in a checkpoint, by ours. */
export type ExpertNames = Readonly<Record<string, string>>;

const sameNames: ExpertNames = { gate_proj: "gate_proj", up_proj: "up_proj", down_proj: "down_proj" };

const kinds = ["weight", "scales", "biases", "bias"];

export interface ExpertsInCheckpoint {
  /** How many experts there are. */
  count: number;
  /** Path of the list of experts, and of the `SwitchGLU` that takes them: "model.layers.0.mlp.experts". */
  from: string;
  to: string;
  names?: ExpertNames;
}

/**
 * Stacks the tensors of experts that a checkpoint has one by one: `<from>.<e>.<name>.weight` (N, K) → `<to>.gate_proj.weight`
 * (E, N, K), packed ones alike. What is not there whole stays as it is. Changes the map.
 * @throws UserError where experts differ in shape
 */
export function stackExperts(
  weights: Map<string, Tensor>,
  { count, from, to, names = sameNames }: ExpertsInCheckpoint,
) {
  for (const [ours, theirs] of Object.entries(names)) {
    for (const kind of kinds) {
      const paths = Array.from({ length: count }, (_, e) => `${from}.${e}.${theirs}.${kind}`);
      if (!weights.has(paths[0]!)) continue;
      const parts = paths.flatMap((path) => weights.get(path) ?? []);
      if (parts.length < count) continue;
      parts.forEach((part, e) => void needShape(paths[e]!, part, parts[0]!.shape));
      weights.set(`${to}.${ours}.${kind}`, mx.stack(parts));
      for (const path of paths) weights.delete(path);
    }
  }
}
