/** Granite (mixture of experts): Granite with experts in place of its MLPs. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type DecoderLayer,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  mixExperts,
  type Residual,
  RMSNorm,
  type Routing,
  SwitchGLU,
  softmaxOfHighest,
} from "../nn";
import { attentionFields, checkHeads, size, trunkFields } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder, expertCounts } from "./gguf/decoder";
import { expertLayer, plainLayer, TensorNames } from "./gguf/names";
import * as granite from "./granite";
import { CausalLM } from "./language-model";

export const Args = z
  .object({
    ...trunkFields,
    ...attentionFields,
    ...granite.factorFields,
    intermediate_size: size,
    num_key_value_heads: size,
    num_local_experts: size,
    num_experts_per_tok: size,
  })
  .superRefine(checkHeads)
  .superRefine(checkExperts);

type Args = z.infer<typeof Args>;

interface ExpertFields {
  num_local_experts?: number | null;
  num_experts_per_tok?: number | null;
}

/** For `superRefine`: a token can't use more experts than there are. */
export function checkExperts(
  { num_local_experts: all, num_experts_per_tok: used }: ExpertFields,
  context: z.RefinementCtx,
): void {
  const problem = (message: string) => context.addIssue({ code: "custom", path: ["num_experts_per_tok"], message });
  if (!all) return;
  if (!used) problem(`is missing, but "num_local_experts" is ${all}`);
  else if (used > all) problem(`is ${used}, but "num_local_experts" is ${all}`);
}

class Router extends Module {
  layer: Layer;

  constructor(
    dims: number,
    experts: number,
    readonly expertsPerToken: number,
    /** Weights in float32, whatever the inputs are. */
    readonly wide: boolean,
  ) {
    super();
    this.layer = new Linear(dims, experts, { bias: false });
  }

  forward(x: Tensor): Routing {
    const logits = this.layer.forward(x);
    return softmaxOfHighest(this.wide ? logits.astype("float32") : logits, this.expertsPerToken);
  }
}

interface MoEOptions {
  dims: number;
  hiddenDims: number;
  experts: number;
  expertsPerToken: number;
  /** Weigh the experts in float32, whatever the inputs are. */
  wide?: boolean;
}

export class MoE extends Module {
  switch_mlp: SwitchGLU;
  router: Router;

  constructor({ dims, hiddenDims, experts, expertsPerToken, wide = false }: MoEOptions) {
    super();
    this.switch_mlp = new SwitchGLU(dims, hiddenDims, experts);
    this.router = new Router(dims, experts, expertsPerToken, wide);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    return mixExperts(x, this.switch_mlp, this.router.forward(x)).astype(x.dtype);
  }
}

/** Changes the map's experts at a path from the checkpoint's form, gate and value as one, to that of `MoE`. */
export function splitExperts(weights: Map<string, Tensor>, path: string): void {
  const joint = weights.get(`${path}.input_linear.weight`);
  const down = weights.get(`${path}.output_linear.weight`);
  if (!joint || !down) return;
  for (const name of ["input_linear", "output_linear"]) weights.delete(`${path}.${name}.weight`);
  const [gate, up] = joint.split(2, 1) as [Tensor, Tensor];
  weights.set(`${path}.switch_mlp.gate_proj.weight`, mx.contiguous(gate));
  weights.set(`${path}.switch_mlp.up_proj.weight`, mx.contiguous(up));
  weights.set(`${path}.switch_mlp.down_proj.weight`, down);
}

class Block extends Module implements DecoderLayer {
  self_attn: granite.Attention;
  block_sparse_moe: MoE;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  readonly factor: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    this.self_attn = new granite.Attention(args);
    this.block_sparse_moe = new MoE({
      dims: D,
      hiddenDims: args.intermediate_size,
      experts: args.num_local_experts,
      expertsPerToken: args.num_experts_per_tok,
      wide: true,
    });
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
    this.factor = args.residual_multiplier;
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const attended = this.self_attn.forward(x.branch(this.input_layernorm), mask, cache);
    const h = x.plus(attended.multiply(this.factor));
    return h.plus(this.block_sparse_moe.forward(h.branch(this.post_attention_layernorm)).multiply(this.factor));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    super(args, () => new Block(args), granite.trunkFactors(args));
  }

  /** Takes the experts' gates and values apart. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    for (const index of this.layers.keys()) splitExperts(sanitized, `model.layers.${index}.block_sparse_moe`);
    return sanitized;
  }
}

/** The router decides which experts are read, and the rest adds to the hidden states: they stay at 8 bits. */
export function quantize(path: string): { groupSize: number; bits: number } | undefined {
  const isKept = /(router\.layer|self_attn\.o_proj|mlp\.down_proj|^lm_head)$/.test(path);
  return isKept ? { groupSize: 64, bits: 8 } : undefined;
}

export const gguf = decoder("granitemoe", {
  names: new TensorNames({
    ...plainLayer,
    ...expertLayer("block_sparse_moe"),
    ffn_gate_inp: "block_sparse_moe.router.layer",
  }),
  pairsRows: true,
  integers: expertCounts,
  floats: granite.factorNames,
});

export const awq = blockAwq({ mlp: "block_sparse_moe", router: "router.layer" });
