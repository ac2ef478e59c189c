/**
 * One token through attention or a feed-forward block as one operation. Every function here answers null where the long
 * way must be gone: on GPUs, for several rows, for layers that are adapted, not fused or of another kind, for caches
 * that others hold.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { geglu, swiglu } from "./activations";
import type { HeadLayout } from "./attention";
import { type KeyValueCache, KVCache } from "./cache";
import { type Layer, Linear, QuantizedLinear } from "./linear";
import type { Mask } from "./masks";
import { jointOf } from "./projection";

const isToken = (x: Tensor) => x.size === x.dim(-1) && mx.defaultDevice() === "cpu";

/** A layer's own matrix; null for what stands in for one, or is not asked by itself. */
function matrixOf(layer: Layer): mx.fast.TokenMatrix | null {
  if (Object.hasOwn(layer, "forward")) return null;
  if (layer.constructor === Linear) return { matrix: layer as Linear, packing: null };
  if (layer.constructor !== QuantizedLinear) return null;
  const packed = layer as QuantizedLinear;
  return packed.quantizesInputs ? null : { matrix: packed, packing: packed.packing };
}

function jointMatrixOf(x: Tensor, layers: readonly Layer[]): mx.fast.TokenMatrix | null {
  const joint = jointOf(x, layers);
  return joint && { matrix: joint, packing: joint.packing };
}

/** What a gated feed-forward block consists of. */
export interface GatedLayers {
  readonly gate_proj: Layer;
  readonly up_proj: Layer;
  readonly down_proj: Layer;
  readonly activation: (gate: Tensor, x: Tensor) => Tensor;
}

export function feedToken(x: Tensor, { gate_proj, up_proj, down_proj, activation }: GatedLayers): Tensor | null {
  const kind = activation === swiglu ? "silu" : activation === geglu ? "gelu" : null;
  if (!kind || !isToken(x)) return null;
  const joint = jointMatrixOf(x, [gate_proj, up_proj]);
  const last = joint && matrixOf(down_proj);
  return last && mx.fast.feedToken(kind, x, joint, last);
}

/** What attention to grouped heads consists of. */
export interface AttentionLayers extends HeadLayout {
  readonly q_proj: Layer;
  readonly k_proj: Layer;
  readonly v_proj: Layer;
  readonly o_proj: Layer;
  readonly scale: number;
}

export function attendToken(x: Tensor, layers: AttentionLayers, mask: Mask, cache?: KeyValueCache): Tensor | null {
  const { q_proj, k_proj, v_proj, o_proj, heads, kvHeads, scale, rope, q_norm, k_norm } = layers;
  if (mask || !(cache instanceof KVCache) || !isToken(x) || (rope && !rope.plain)) return null;
  const room = cache.room;
  if (!room) return null;
  const joint = jointMatrixOf(x, [q_proj, k_proj, v_proj]);
  const last = joint && matrixOf(o_proj);
  if (!last) return null;
  const norms = q_norm && k_norm && { queries: q_norm.gain, keys: k_norm.gain, eps: q_norm.eps };
  const [keys, values] = room;
  const { offset } = cache;
  const rotation = rope?.plain ?? null;
  const shape = { joint, last, keys, values, used: offset, offset, heads, kvHeads, norms, rotation, scale };
  const out = mx.fast.attendToken(x, shape);
  if (out) cache.filledBy(out);
  return out;
}
