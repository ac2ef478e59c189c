/** Muse Spark's tensors as published, and as the model has them. */
import { UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { needShape, nvfp4Largest } from "../../nn";

/** Factors on the stream and on what is added to it, from a gate (D). */
export function gateFactors(gate: Tensor): { alpha: Tensor; beta: Tensor } {
  const opened = gate.astype("float32").divide(0.3);
  const beta = opened.sigmoid();
  return { alpha: opened.negative().sigmoid().multiply(beta.add(1)).maximum(1e-3).sqrt(), beta };
}

/** Weights that checkpoints have as their distance from one. */
const centred =
  /(input_layernorm|(pre|post)_feedforward_layernorm|mlp\.pre_expert_norm|mlp\.experts\.post_expert_norm)\.weight$/;

const gates = { post_attention_residual_gate: "add_attn", post_feedforward_residual_gate: "add_ffn" } as const;

type Named = readonly (readonly [name: string, tensor: Tensor])[];

/** A tensor of a published checkpoint as those of the model. */
export function fromPublished(name: string, weight: Tensor, experts: number): Named {
  const [, layer, gate] = /^(.*\.)(post_(?:attention|feedforward)_residual_gate)\.gate$/.exec(name) ?? [];
  if (gate) {
    const { alpha, beta } = gateFactors(weight);
    const path = `${layer}${gates[gate as keyof typeof gates]}`;
    return [
      [`${path}_alpha`, alpha],
      [`${path}_beta`, beta],
    ];
  }
  if (centred.test(name)) return [[name, weight.astype("float32").add(1).astype(weight.dtype)]];
  const [, path, projection, kind = ""] = expertTensor.exec(name) ?? [];
  if (path === undefined) return [[name, weight]];
  return fromExperts(name, weight, experts, { path, isJoint: projection === "gate_up_proj", kind });
}

const expertTensor = /^(.*mlp\.experts\.)(gate_up_proj|down_proj)(_weight_scale|_weight_scale_2|_input_scale)?$/;

/** Gate and up projection are one tensor there, gate first. */
function fromExperts(
  name: string,
  tensor: Tensor,
  experts: number,
  { path, isJoint, kind }: { path: string; isJoint: boolean; kind: string },
): Named {
  // Of inputs that are packed too, which they are not here.
  if (kind === "_input_scale") return [];
  if (kind === "_weight_scale_2") {
    needShape(name, tensor, isJoint ? [experts, 2] : [experts]);
    const scale = tensor.astype("float32").multiply(nvfp4Largest);
    if (!isJoint) return [[`${path}down_proj.global_scale`, scale]];
    return [
      [`${path}gate_proj.global_scale`, scale.at(mx.ellipsis, 0)],
      [`${path}up_proj.global_scale`, scale.at(mx.ellipsis, 1)],
    ];
  }
  const own = kind === "_weight_scale" ? "scales" : "weight";
  const packed = (part: Tensor) => (own === "weight" && part.dtype === "uint8" ? part.view("uint32") : part);
  if (!isJoint) return [[`${path}down_proj.${own}`, packed(tensor)]];
  const [first, second] = tensor.split(2, 1) as [Tensor, Tensor];
  return [
    [`${path}gate_proj.${own}`, packed(first)],
    [`${path}up_proj.${own}`, packed(second)],
  ];
}

/** @throws UserError for packed experts whose scales are not all there */
export function checkScales(weights: ReadonlyMap<string, Tensor>): void {
  for (const [name, { dtype }] of weights) {
    if (dtype !== "uint8" || !/mlp\.experts\.(gate_up|down)_proj$/.test(name)) continue;
    const missing = ["_weight_scale", "_weight_scale_2"].find((kind) => !weights.has(`${name}${kind}`));
    if (!missing) continue;
    throw new UserError(`the weights have ${name} in nvfp4, but not its scales ${name}${missing}`, {
      hint: "Download the model again.",
    });
  }
}

/** Rotated pairs of features half a head apart, (heads · headDim, …), as neighbours. */
export const neighbours = (rows: Tensor, headDim: number): Tensor =>
  rows
    .reshape(-1, 2, headDim / 2, ...rows.shape.slice(1))
    .swapaxes(1, 2)
    .reshape(...rows.shape);

/**
 * One projection of queries, keys, values and gates. Rotated pairs of features are neighbours in it: checkpoints have them
 * half a head apart. Changes the map.
 */
export function joinProjections(weights: Map<string, Tensor>, path: string, headDim: number): void {
  for (const kind of ["weight", "scales", "biases"]) {
    const names = ["q_proj", "k_proj", "v_proj", "gate_proj"].map((name) => `${path}.${name}.${kind}`);
    const parts = names.flatMap((name) => weights.get(name) ?? []);
    if (parts.length < names.length) continue;
    for (const name of names) weights.delete(name);
    const [q, k, v, gate] = parts as [Tensor, Tensor, Tensor, Tensor];
    const turned = [neighbours(q, headDim), neighbours(k, headDim)];
    weights.set(`${path}.qkvg_proj.${kind}`, mx.concatenate([...turned, v, gate]));
  }
}

/** The same of queries, keys and values of the vision tower, with their biases. Changes the map. */
export function joinSeen(weights: Map<string, Tensor>, path: string, headDim: number): void {
  for (const kind of ["weight", "bias"]) {
    const names = ["q_proj", "k_proj", "v_proj"].map((name) => `${path}.${name}.${kind}`);
    const parts = names.flatMap((name) => weights.get(name) ?? []);
    if (parts.length < names.length) continue;
    for (const name of names) weights.delete(name);
    const [q, k, v] = parts as [Tensor, Tensor, Tensor];
    weights.set(`${path}.qkv_proj.${kind}`, mx.concatenate([neighbours(q, headDim), neighbours(k, headDim), v]));
  }
}
