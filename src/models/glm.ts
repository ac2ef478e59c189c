/** GLM 4 (ChatGLM's successor): Llama that turns neighbours, with gate and value of the feed-forward block in one projection. */
import { z } from "zod";
import { JointGatedMLP, type RopeOptions } from "../nn";
import { checkHeads, denseFields, headsOf, ropeOf, size } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    head_dim: size,
    num_key_value_heads: size,
    partial_rotary_factor: z.number().positive().max(1).nullish(),
    rope_traditional: z.boolean().default(true),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

/** Published models turn the first half of each head, which mlx-lm leaves out. */
function rotated(args: Args): RopeOptions {
  const stated = args.partial_rotary_factor ?? args.rope_parameters?.partial_rotary_factor;
  const share = typeof stated === "number" ? stated : 1;
  return { ...ropeOf(args), dims: Math.trunc(headsOf(args).headDim * share) };
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const attention = () => new llama.Attention(args, { rope: rotated(args), outputBias: false });
    super(args, () => new llama.Block(attention(), new JointGatedMLP(args.hidden_size, args.intermediate_size), args));
  }
}

export const awq = blockAwq();

export const gguf = decoder("chatglm", {
  names: new TensorNames({
    attn_norm: "input_layernorm",
    attn_q: "self_attn.q_proj",
    attn_k: "self_attn.k_proj",
    attn_v: "self_attn.v_proj",
    attn_output: "self_attn.o_proj",
    ffn_norm: "post_attention_layernorm",
    ffn_up: "mlp.gate_up_proj",
    ffn_down: "mlp.down_proj",
  }),
  only: { rope_traditional: true },
  turning: (settings) => rotated(settings as unknown as Args).dims,
});
