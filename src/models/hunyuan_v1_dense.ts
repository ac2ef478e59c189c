/** Hunyuan (dense): Llama with norms on the heads of queries and keys after they are rotated, and a stretched base. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { attention, GatedMLP, joinHeads, type KeyValueCache, type Mask, project, RMSNorm, splitHeads } from "../nn";
import { checkHeads, denseFields, headsOf, size } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { f32 } from "./gguf/facts";
import { plainLayer, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

/** The base grows with `alpha`; the factor that stands beside it says the same in another way. */
const Alpha = z.looseObject({ alpha: z.number().positive(), factor: z.number(), type: z.string() });

export const ropeFields = {
  rope_theta: z.number().positive().nullish(),
  rope_scaling: Alpha.nullish(),
  rope_parameters: z
    .looseObject({ alpha: z.number().positive().nullish(), rope_theta: z.number().positive() })
    .nullish(),
};

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    use_qk_norm: z.boolean().default(true),
    ...ropeFields,
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

type Rotated = z.infer<z.ZodObject<typeof ropeFields>> & Parameters<typeof headsOf>[0];

/** The base of the rotation, stretched. */
export function baseOf(args: Rotated): number {
  const dims = headsOf(args).headDim;
  const alpha = args.rope_scaling?.alpha ?? args.rope_parameters?.alpha ?? 1;
  return (args.rope_theta ?? args.rope_parameters?.rope_theta ?? 10_000) * alpha ** (dims / (dims - 2));
}

class Attention extends llama.Attention {
  query_layernorm?: RMSNorm;
  key_layernorm?: RMSNorm;

  constructor(args: Args) {
    const dims = headsOf(args).headDim;
    const base = baseOf(args);
    super({ ...args, rope_scaling: null, rope_parameters: null }, { rope: { dims, base } });
    if (!args.use_qk_norm) return;
    this.query_layernorm = new RMSNorm(dims, args.rms_norm_eps);
    this.key_layernorm = new RMSNorm(dims, args.rms_norm_eps);
  }

  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [queries, keys, values] = project(x, [this.q_proj, this.k_proj, this.v_proj]) as [Tensor, Tensor, Tensor];
    const turned = (part: Tensor, heads: number) => this.rope!.forward(splitHeads(part, heads), cache?.offset);
    const [q, k] = [turned(queries, this.heads), turned(keys, this.kvHeads)];
    const normed: [Tensor, Tensor] = [this.query_layernorm?.forward(q) ?? q, this.key_layernorm?.forward(k) ?? k];
    return joinHeads(attention(...normed, splitHeads(values, this.kvHeads), { scale: this.scale, mask, cache }));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const mlp = () => new GatedMLP(args.hidden_size, args.intermediate_size);
    super(args, () => new llama.Block(new Attention(args), mlp(), args));
  }
}

export const awq = denseAwq();

export const gguf = decoder("hunyuan-dense", {
  names: new TensorNames({
    ...plainLayer,
    attn_q_norm: "self_attn.query_layernorm",
    attn_k_norm: "self_attn.key_layernorm",
  }),
  stretches: false,
  only: { attention_bias: false, rope_traditional: false, use_qk_norm: true },
  write: (settings) => ({ "rope.freq_base": f32(baseOf(settings as unknown as Args)) }),
});
