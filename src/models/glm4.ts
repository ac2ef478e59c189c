/** GLM 4: Llama with norms before and after each sublayer, and one projection for gate and up; part of each head turns. */
import { z } from "zod";
import {
  type DecoderLayer,
  JointGatedMLP,
  type KeyValueCache,
  type Mask,
  Module,
  type Residual,
  RMSNorm,
  type RopeOptions,
} from "../nn";
import { checkHeads, denseFields, headsOf, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import { Attention } from "./llama";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    partial_rotary_factor: z.number().positive().max(1).nullish(),
    rope_traditional: z.boolean().default(true),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

function rotated(args: Args): RopeOptions {
  const stated = args.partial_rotary_factor ?? args.rope_parameters?.partial_rotary_factor;
  const share = typeof stated === "number" ? stated : 0.5;
  return { ...ropeOf(args), dims: Math.trunc(headsOf(args).headDim * share) };
}

/** x + norm(attention(norm(x))), then h + norm(mlp(norm(h))). */
class Block extends Module implements DecoderLayer {
  self_attn: Attention;
  mlp: JointGatedMLP;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  post_self_attn_layernorm: RMSNorm;
  post_mlp_layernorm: RMSNorm;

  constructor(args: Args) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    this.self_attn = new Attention(args, { rope: rotated(args), outputBias: false });
    this.mlp = new JointGatedMLP(args.hidden_size, args.intermediate_size);
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
    this.post_self_attn_layernorm = new RMSNorm(D, eps);
    this.post_mlp_layernorm = new RMSNorm(D, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const attended = this.self_attn.forward(x.branch(this.input_layernorm), mask, cache);
    const h = x.plus(this.post_self_attn_layernorm.forward(attended));
    const fed = this.mlp.forward(h.branch(this.post_attention_layernorm));
    return h.plus(this.post_mlp_layernorm.forward(fed));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    super(args, () => new Block(args));
  }
}

export const gguf = decoder("glm4", {
  names: new TensorNames({
    attn_norm: "input_layernorm",
    attn_q: "self_attn.q_proj",
    attn_k: "self_attn.k_proj",
    attn_v: "self_attn.v_proj",
    attn_output: "self_attn.o_proj",
    post_attention_norm: "post_self_attn_layernorm",
    ffn_norm: "post_attention_layernorm",
    ffn_up: "mlp.gate_up_proj",
    ffn_down: "mlp.down_proj",
    post_ffw_norm: "post_mlp_layernorm",
  }),
  only: { rope_traditional: true },
  turning: (settings) => rotated(settings as unknown as Args).dims,
});

export const awq = blockAwq();
