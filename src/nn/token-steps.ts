/**
 * One token through a layer, attention or a feed-forward block as one operation. Every function here answers null where the long
 * way must be gone: on a GPU without such kernels, for several rows (but on CUDA one of each sequence), for layers that are adapted, not fused or of another kind, for caches
 * that others hold. Where ranks have a part of each layer, CUDA's kernels sum over them as they go; a CPU goes the long way.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { geglu, swiglu } from "./activations";
import { type HeadLayout, headNorms } from "./attention";
import { BlockLinear } from "./blocks";
import { isWritable, isWritableBatch, type KeyValueCache, type WritableBatch, type WritableCache } from "./cache";
import { Kept } from "./kept";
import { type Layer, Linear, QuantizedLinear } from "./linear";
import type { Mask } from "./masks";
import { RMSNorm, ZeroCenteredRMSNorm } from "./norms";
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

/** Adds what a layer's description is made of: the layer, what it computes by, and its tensors. */
function factsOfMatrix(facts: unknown[], layer: Layer | ExpertLayer): unknown[] {
  facts.push(layer, layer.forward);
  // By kind, though each has a weight: the engine finds fields of one kind at once.
  if (layer instanceof QuantizedLinear) {
    facts.push(layer.weight, layer.scales, layer.biases, layer.bias, layer._joint, layer.quantizesInputs);
  } else if (layer instanceof Linear) {
    facts.push(layer.weight, layer.bias, layer._joint);
  } else if (layer instanceof BlockLinear) {
    facts.push(layer.weight, layer.bias, layer._joint);
  } else if (layer instanceof QuantizedSwitchLinear) {
    facts.push(layer.weight, layer.scales, layer.biases, layer.bias, layer.global_scale);
  } else if (layer instanceof SwitchLinear) {
    facts.push(layer.weight, layer.bias);
  } else if (layer instanceof SumOfParts) {
    facts.push(layer.bias);
    factsOfMatrix(facts, layer.layer);
  }
  return facts;
}

function factsOfFeedForward(facts: unknown[], { gate_proj, up_proj, down_proj, activation }: GatedLayers): unknown[] {
  facts.push(activation);
  factsOfMatrix(facts, gate_proj);
  factsOfMatrix(facts, up_proj);
  return factsOfMatrix(facts, down_proj);
}

/** @param norms `headNorms` of the layers, which may be tensors that are made for each token */
function factsOfAttention(facts: unknown[], layers: AttentionLayers, norms: HeadNorms): unknown[] {
  const { q_proj, k_proj, v_proj, o_proj, rope, heads, kvHeads, scale } = layers;
  facts.push(rope?.plain, heads, kvHeads, scale, norms?.queries, norms?.keys, norms?.eps);
  factsOfMatrix(facts, q_proj);
  factsOfMatrix(facts, k_proj);
  factsOfMatrix(facts, v_proj);
  return factsOfMatrix(facts, o_proj);
}

function factsOfNorm(facts: unknown[], norm: Norm): unknown[] {
  const { forward, gain, eps } = norm as Norm & Partial<RMSNorm>;
  facts.push(norm, forward, gain, eps);
  return facts;
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

const describedFeeds = new Kept<mx.fast.Description<mx.fast.TokenFeedForward> | null>();

export function feedToken(x: Tensor, layers: GatedLayers): Tensor | null {
  if (!isToken(x) || !onCpu()) return null;
  const described = describedFeeds.of(layers, factsOfFeedForward([], layers), () => {
    const block = feedForward(x, layers);
    return block && !block.group ? mx.fast.describeFeedForward(block) : null;
  });
  return described && mx.fast.feedToken(x, described);
}

/** What attention to grouped heads consists of. */
export interface AttentionLayers extends HeadLayout {
  readonly q_proj: Layer;
  readonly k_proj: Layer;
  readonly v_proj: Layer;
  readonly o_proj: Layer;
  readonly scale: number;
}

type HeadNorms = ReturnType<typeof headNorms>;

function attentionOf(x: Tensor, layers: AttentionLayers, norms: HeadNorms): mx.fast.TokenAttention | null {
  const { q_proj, k_proj, v_proj, o_proj, heads, kvHeads, scale, rope } = layers;
  if (rope && !rope.plain) return null;
  const joint = jointMatrices(x, [q_proj, k_proj, v_proj]);
  const last = joint && lastOf(o_proj);
  return last && { joint, ...last, heads, kvHeads, norms, rotation: rope?.plain ?? null, scale };
}

/** Where a cache has room for one token of one sequence. */
function rowsOf(cache: WritableCache): mx.fast.OneTokenRows | null {
  const { room, offset, row } = cache;
  return room && { keys: room[0], values: room[1], used: cache.size, row, offset };
}

const describedAttentions = new Kept<mx.fast.Description<mx.fast.TokenAttention> | null>();

export function attendToken(x: Tensor, layers: AttentionLayers, mask: Mask, cache?: KeyValueCache): Tensor | null {
  if (mask || !isWritable(cache) || !isToken(x) || refusedByGpu.has(layers)) return null;
  const norms = headNorms(layers);
  const described = describedAttentions.of(layers, factsOfAttention([], layers, norms), () => {
    const attention = attentionOf(x, layers, norms);
    return attention && mx.fast.describeAttention(attention);
  });
  const rows = described && rowsOf(cache);
  const out = rows && orRemembered(layers, mx.fast.attendToken(x, described, rows));
  if (out) cache.filledBy(out);
  return out;
}

/** The same of several sequences: attention, and whole layers. */
const rowsRefused = new WeakSet<object>();
const layerRowsRefused = new WeakSet<object>();

/** The heads' results of one token of each of several sequences, side by side: (B, 1, H · D). On a GPU alone. */
export function attendRows(x: Tensor, layers: AttentionLayers, mask: Mask, cache?: KeyValueCache): Tensor | null {
  if (onCpu() || !isWritableBatch(cache) || x.dim(1) !== 1 || rowsRefused.has(layers)) return null;
  const { q_proj, k_proj, v_proj, heads, kvHeads, scale, rope } = layers;
  const rows = cache.isPlain(mask) && (!rope || rope.plain) ? batchRowsOf(cache) : null;
  const joint = rows && projectJointly(x, [q_proj, k_proj, v_proj]);
  if (!joint) return null;
  const described = mx.fast.describeHeads({
    heads,
    kvHeads,
    norms: headNorms(layers),
    rotation: rope?.plain ?? null,
    scale,
  });
  const out = orRemembered(layers, mx.fast.attendRows(joint, described, rows), rowsRefused);
  if (out) cache.filledBy(out);
  return out;
}

/** Where a cache has room for one token of each sequence. */
function batchRowsOf(cache: WritableBatch): mx.fast.SequenceRows | null {
  const { room } = cache;
  return room && { keys: room[0], values: room[1], ...cache.inOrder };
}

/** What a pre-norm layer consists of. */
export interface BlockLayers {
  readonly input_layernorm: Norm;
  /** Null where its attention is not that of `AttentionLayers`. */
  readonly plainAttention: AttentionLayers | null;
  /** Ahead of the feed-forward block, or of attention's result where the two below are there. */
  readonly post_attention_layernorm: Norm;
  readonly pre_feedforward_layernorm?: Norm;
  readonly post_feedforward_layernorm?: Norm;
  /** Null where its feed-forward block is not that of `GatedLayers`. */
  readonly plainFeedForward: GatedLayers | null;
}

/** What a norm multiplies by; null for what stands in for one, or is another kind. */
function normOf(norm: Norm | undefined): mx.fast.TokenNorm | null {
  const isPlain = norm?.constructor === RMSNorm || norm?.constructor === ZeroCenteredRMSNorm;
  if (!isPlain || Object.hasOwn(norm, "forward")) return null;
  const { gain, eps } = norm as RMSNorm;
  return { weight: gain, eps };
}

/** A layer's norms by their places. */
function normsOf(layers: BlockLayers): Pick<mx.fast.TokenLayer, "first" | "second" | "behind"> | null {
  const { input_layernorm, post_attention_layernorm, pre_feedforward_layernorm, post_feedforward_layernorm } = layers;
  const [first, second] = [normOf(input_layernorm), normOf(pre_feedforward_layernorm ?? post_attention_layernorm)];
  if (!first || !second) return null;
  if (!pre_feedforward_layernorm) return { first, second };
  const [attention, feed] = [normOf(post_attention_layernorm), normOf(post_feedforward_layernorm)];
  return attention && feed && { first, second, behind: { attention, feed } };
}

function layerOf(x: Tensor, layers: BlockLayers, norms: HeadNorms): mx.fast.TokenLayer | null {
  const { plainAttention, plainFeedForward } = layers;
  const own = normsOf(layers);
  if (!plainAttention || !plainFeedForward || !own) return null;
  const attention = attentionOf(x, plainAttention, norms);
  const feed = attention && feedForward(x, plainFeedForward);
  return feed && attention.group === feed.group ? { ...own, attention, feed } : null;
}

const describedLayers = new Kept<mx.fast.Description<mx.fast.TokenLayer> | null>();

/** The layer's description for x (B, 1, C); null where its parts are of other kinds. */
function describedLayer(x: Tensor, layers: BlockLayers): mx.fast.Description<mx.fast.TokenLayer> | null {
  const { plainAttention, plainFeedForward } = layers;
  if (!plainAttention || !plainFeedForward) return null;
  const norms = headNorms(plainAttention);
  const facts = factsOfFeedForward(factsOfAttention([], plainAttention, norms), plainFeedForward);
  factsOfNorm(facts, layers.input_layernorm);
  factsOfNorm(facts, layers.post_attention_layernorm);
  if (layers.pre_feedforward_layernorm) factsOfNorm(facts, layers.pre_feedforward_layernorm);
  if (layers.post_feedforward_layernorm) factsOfNorm(facts, layers.post_feedforward_layernorm);
  return describedLayers.of(layers, facts, () => {
    const layer = layerOf(x, layers, norms);
    return layer && mx.fast.describeLayer(layer);
  });
}

/** The stream behind a whole layer. */
export function layerToken(x: Residual, layers: BlockLayers, mask: Mask, cache?: KeyValueCache): Residual | null {
  if (mask || !isWritable(cache) || refusedByGpu.has(layers)) return null;
  return x.through((base, delta) => {
    const described = isToken(base) ? describedLayer(base, layers) : null;
    const rows = described && rowsOf(cache);
    const parts = rows && orRemembered(layers, mx.fast.layerToken(base, delta, described, rows));
    if (parts) cache.filledBy(parts[1]);
    return parts;
  });
}

/** The stream of one token of each of several sequences behind a whole layer. On a GPU alone. */
export function layerRows(x: Residual, layers: BlockLayers, mask: Mask, cache?: KeyValueCache): Residual | null {
  if (onCpu() || !isWritableBatch(cache) || !cache.isPlain(mask) || layerRowsRefused.has(layers)) return null;
  return x.through((base, delta) => {
    const described = base.dim(1) === 1 ? describedLayer(base, layers) : null;
    const rows = described && batchRowsOf(cache);
    const parts = rows && orRemembered(layers, mx.fast.layerRows(base, delta, described, rows), layerRowsRefused);
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

const describedExperts = new Kept<mx.fast.Description<mx.fast.TokenExperts> | null>();

/** The sum of the results of a token's experts, (…, k), by their weights. On a GPU alone: a CPU's products are not waiting for it. */
export function expertsToken(x: Tensor, layers: GatedExperts, experts: Tensor, weights: Tensor): Tensor | null {
  if (!isToken(x) || onCpu() || weights.dtype !== x.dtype || refusedByGpu.has(layers)) return null;
  const { gate_proj, up_proj, down_proj, activation } = layers;
  const facts: unknown[] = [activation];
  for (const layer of [gate_proj, up_proj, down_proj]) factsOfMatrix(facts, layer);
  const described = describedExperts.of(layers, facts, () => {
    const kind = activation === swiglu ? "silu" : activation === geglu ? "gelu" : null;
    const [gate, up, down] = [stackOf(gate_proj), stackOf(up_proj), stackOf(down_proj)];
    return kind && gate && up && down ? mx.fast.describeExperts({ gate, up, down, kind }) : null;
  });
  return described && orRemembered(layers, mx.fast.expertsToken(x, experts, weights, described));
}

/** The k highest of a softmax over logits (…, E), and their weights, by one kernel; null where there is none. */
export function routeTokens(logits: Tensor, k: number, options: { normalize: boolean }) {
  const parts = onCpu() ? null : mx.fast.routeTokens(logits, k, options);
  return parts && { experts: parts[0], weights: parts[1] };
}
