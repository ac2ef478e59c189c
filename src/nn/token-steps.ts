/**
 * One token through a layer, attention or a feed-forward block as one operation. Every function here answers null where the long
 * way must be gone: on a GPU without such kernels, for several rows (but for attention on CUDA), for layers that are adapted, not fused or of another kind, for caches
 * that others hold. Where ranks have a part of each layer, CUDA's kernels sum over them as they go; a CPU goes the long way.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { geglu, swiglu } from "./activations";
import { type HeadLayout, headNorms } from "./attention";
import { BlockLinear } from "./blocks";
import { BatchKVCache, type KeyValueCache, KVCache } from "./cache";
import { type Layer, Linear, QuantizedLinear } from "./linear";
import type { Mask } from "./masks";
import { RMSNorm } from "./norms";
import { jointOf, projectJointly } from "./projection";
import type { Norm, Residual } from "./residual";
import { SumOfParts } from "./shard/sum-of-parts";
import { type ExpertLayer, QuantizedSwitchLinear, SwitchLinear } from "./switch-linear";

const isToken = (x: Tensor) => x.size === x.dim(-1);
const onCpu = () => mx.defaultDevice() === "cpu";

/** What a GPU has no kernel for: it is asked once. */
const refusedByGpu = new WeakSet<object>();

function orRemembered<T>(layers: object, result: T | null, refused = refusedByGpu): T | null {
  if (!result && !onCpu()) refused.add(layers);
  return result;
}

/** A layer's own matrix; null for what stands in for one, or is not asked by itself. */
function matrixOf(layer: Layer): mx.fast.TokenMatrix | null {
  if (Object.hasOwn(layer, "forward")) return null;
  if (layer.constructor === Linear) return { matrix: layer as Linear, packing: null };
  if (layer.constructor === BlockLinear) {
    const own = layer as BlockLinear;
    return { matrix: own, packing: { blockType: own.blocks.code } };
  }
  if (layer.constructor !== QuantizedLinear) return null;
  const packed = layer as QuantizedLinear;
  return packed.quantizesInputs ? null : { matrix: packed, packing: packed.packing };
}

/** Layers that share their input: as one matrix where they were joined, one each where types of blocks keep them apart. */
function jointMatrices(x: Tensor, layers: readonly Layer[]): mx.fast.TokenMatrix[] | null {
  const joint = jointOf(x, layers);
  if (joint) return [{ matrix: joint, packing: joint.blocks ? { blockType: joint.blocks.code } : joint.packing }];
  const own = layers.some((layer) => layer instanceof BlockLinear) ? layers.map(matrixOf) : [null];
  return own.every((matrix) => matrix !== null) ? own : null;
}

/** A matrix whose results are summed over ranks, or are this rank's alone. */
interface LastMatrix {
  last: mx.fast.TokenMatrix;
  group: mx.distributed.Group | null;
}

function lastOf(layer: Layer): LastMatrix | null {
  const shared = layer instanceof SumOfParts ? layer.plain : null;
  const last = matrixOf(shared?.layer ?? layer);
  return last && { last, group: shared?.group ?? null };
}

/** What a gated feed-forward block consists of. */
export interface GatedLayers {
  readonly gate_proj: Layer;
  readonly up_proj: Layer;
  readonly down_proj: Layer;
  readonly activation: (gate: Tensor, x: Tensor) => Tensor;
}

function feedForward(x: Tensor, layers: GatedLayers): (mx.fast.TokenFeedForward & LastMatrix) | null {
  const { gate_proj, up_proj, down_proj, activation } = layers;
  const kind = activation === swiglu ? "silu" : activation === geglu ? "gelu" : null;
  const joint = kind && jointMatrices(x, [gate_proj, up_proj]);
  const last = joint && lastOf(down_proj);
  return last && { joint, ...last, kind };
}

export function feedToken(x: Tensor, layers: GatedLayers): Tensor | null {
  const block = isToken(x) && onCpu() ? feedForward(x, layers) : null;
  return block && !block.group ? mx.fast.feedToken(x, block) : null;
}

/** What attention to grouped heads consists of. */
export interface AttentionLayers extends HeadLayout {
  readonly q_proj: Layer;
  readonly k_proj: Layer;
  readonly v_proj: Layer;
  readonly o_proj: Layer;
  readonly scale: number;
}

function attentionOf(
  x: Tensor,
  layers: AttentionLayers,
  room: readonly [Tensor, Tensor] | null,
  [used, offset]: readonly [used: number, offset: number],
): mx.fast.TokenAttention | null {
  const { q_proj, k_proj, v_proj, o_proj, heads, kvHeads, scale, rope } = layers;
  if (!room || (rope && !rope.plain)) return null;
  const joint = jointMatrices(x, [q_proj, k_proj, v_proj]);
  const last = joint && lastOf(o_proj);
  if (!last) return null;
  const norms = headNorms(layers);
  const [keys, values] = room;
  const rotation = rope?.plain ?? null;
  return { joint, ...last, keys, values, used, offset, heads, kvHeads, norms, rotation, scale };
}

export function attendToken(x: Tensor, layers: AttentionLayers, mask: Mask, cache?: KeyValueCache): Tensor | null {
  if (mask || !(cache instanceof KVCache) || !isToken(x) || refusedByGpu.has(layers)) return null;
  const attention = attentionOf(x, layers, cache.room, [cache.offset, cache.offset]);
  const out = attention && orRemembered(layers, mx.fast.attendToken(x, attention));
  if (out) cache.filledBy(out);
  return out;
}

/** The same of several sequences: attention, and whole layers. */
const rowsRefused = new WeakSet<object>();
const layerRowsRefused = new WeakSet<object>();

/** The heads' results of one token of each of several sequences, side by side: (B, 1, H · D). On a GPU alone. */
export function attendRows(x: Tensor, layers: AttentionLayers, mask: Mask, cache?: KeyValueCache): Tensor | null {
  if (onCpu() || !(cache instanceof BatchKVCache) || x.dim(1) !== 1 || rowsRefused.has(layers)) return null;
  const { q_proj, k_proj, v_proj, heads, kvHeads, scale, rope } = layers;
  const { room, size, leftPadding } = cache;
  if (!room || (rope && !rope.plain) || !cache.isPlain(mask)) return null;
  const joint = projectJointly(x, [q_proj, k_proj, v_proj]);
  if (!joint) return null;
  const norms = headNorms(layers);
  const [keys, values] = room;
  const rotation = rope?.plain ?? null;
  const sizes = { used: size, starts: leftPadding, heads, kvHeads, scale };
  const asked = { keys, values, norms, rotation, ...sizes };
  const out = orRemembered(layers, mx.fast.attendRows(joint, asked), rowsRefused);
  if (out) cache.filledBy(out);
  return out;
}

/** What a pre-norm layer consists of. */
export interface BlockLayers {
  readonly input_layernorm: Norm;
  /** Null where its attention is not that of `AttentionLayers`. */
  readonly plainAttention: AttentionLayers | null;
  readonly post_attention_layernorm: Norm;
  /** Null where its feed-forward block is not that of `GatedLayers`. */
  readonly plainFeedForward: GatedLayers | null;
}

/** A norm's own weight; null for what stands in for one, or is another kind. */
function normOf(norm: Norm): mx.fast.TokenNorm | null {
  return norm.constructor === RMSNorm && !Object.hasOwn(norm, "forward") ? (norm as RMSNorm) : null;
}

/** A layer whose attention is told; null where its parts are of other kinds. */
function layerOf(
  x: Tensor,
  layers: BlockLayers,
  attentionFor: (layers: AttentionLayers) => mx.fast.TokenAttention | null,
): mx.fast.TokenLayer | null {
  const { input_layernorm, plainAttention, post_attention_layernorm, plainFeedForward } = layers;
  const [first, second] = [normOf(input_layernorm), normOf(post_attention_layernorm)];
  if (!plainAttention || !plainFeedForward || !first || !second) return null;
  const attention = attentionFor(plainAttention);
  const feed = attention && feedForward(x, plainFeedForward);
  return feed && attention.group === feed.group ? { first, attention, second, feed } : null;
}

/** The stream behind a whole layer. */
export function layerToken(x: Residual, layers: BlockLayers, mask: Mask, cache?: KeyValueCache): Residual | null {
  if (mask || !(cache instanceof KVCache) || refusedByGpu.has(layers)) return null;
  return x.through((base, delta) => {
    if (!isToken(base)) return null;
    const places = [cache.offset, cache.offset] as const;
    const layer = layerOf(base, layers, (attention) => attentionOf(base, attention, cache.room, places));
    const parts = layer && orRemembered(layers, mx.fast.layerToken(base, delta, layer));
    if (parts) cache.filledBy(parts[1]);
    return parts;
  });
}

/** The stream of one token of each of several sequences behind a whole layer. On a GPU alone. */
export function layerRows(x: Residual, layers: BlockLayers, mask: Mask, cache?: KeyValueCache): Residual | null {
  if (onCpu() || !(cache instanceof BatchKVCache) || !cache.isPlain(mask) || layerRowsRefused.has(layers)) return null;
  return x.through((base, delta) => {
    if (base.dim(1) !== 1) return null;
    const layer = layerOf(base, layers, (attention) => attentionOf(base, attention, cache.room, [cache.size, 0]));
    const asked = layer && mx.fast.layerRows(base, delta, layer, cache.leftPadding);
    const parts = layer && orRemembered(layers, asked, layerRowsRefused);
    if (parts) cache.filledBy(parts[0]);
    return parts;
  });
}

function stackOf(layer: ExpertLayer): mx.fast.TokenMatrix | null {
  if (Object.hasOwn(layer, "forward")) return null;
  if (layer.constructor === SwitchLinear) return { matrix: layer as SwitchLinear, packing: null };
  if (layer.constructor !== QuantizedSwitchLinear) return null;
  const packed = layer as QuantizedSwitchLinear;
  return packed.global_scale ? null : { matrix: packed, packing: packed.packing };
}

/** What gated experts consist of. */
export interface GatedExperts {
  readonly gate_proj: ExpertLayer;
  readonly up_proj: ExpertLayer;
  readonly down_proj: ExpertLayer;
  readonly activation: (gate: Tensor, x: Tensor) => Tensor;
}

/** The sum of the results of a token's experts, (…, k), by their weights. On a GPU alone: a CPU's products are not waiting for it. */
export function expertsToken(x: Tensor, layers: GatedExperts, experts: Tensor, weights: Tensor): Tensor | null {
  if (!isToken(x) || onCpu() || weights.dtype !== x.dtype || refusedByGpu.has(layers)) return null;
  const { gate_proj, up_proj, down_proj, activation } = layers;
  const kind = activation === swiglu ? "silu" : activation === geglu ? "gelu" : null;
  const [gate, up, down] = [stackOf(gate_proj), stackOf(up_proj), stackOf(down_proj)];
  if (!kind || !gate || !up || !down) return null;
  return orRemembered(layers, mx.fast.expertsToken(x, experts, weights, { gate, up, down, kind }));
}

/** The k highest of a softmax over logits (…, E), and their weights, by one kernel; null where there is none. */
export function routeTokens(logits: Tensor, k: number, options: { normalize: boolean }) {
  const parts = onCpu() ? null : mx.fast.routeTokens(logits, k, options);
  return parts && { experts: parts[0], weights: parts[1] };
}
