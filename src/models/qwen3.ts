/** Qwen 3: Llama with RMSNorm on the heads of queries and keys, before they are rotated. */
import { z } from "zod";
import { GatedMLP, RMSNorm } from "../nn";
import { checkHeads, checkLayerTypes, denseFields, layerType, maskOf, ropeOf, size, slidingFields } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    ...slidingFields,
    num_key_value_heads: size,
    head_dim: size,
    max_position_embeddings: size,
    tie_word_embeddings: z.boolean(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine(({ rope_theta, rope_parameters }, context) => {
    if (rope_theta || rope_parameters) return;
    context.addIssue({ code: "custom", path: ["rope_theta"], message: "is missing" });
  });

type Args = z.infer<typeof Args>;

type AttentionArgs = llama.AttentionArgs & { rms_norm_eps: number };

/** Projections have no bias, whatever the configuration says. */
export class Attention extends llama.Attention {
  q_norm: RMSNorm;
  k_norm: RMSNorm;

  constructor(args: AttentionArgs, { rope = ropeOf(args) }: llama.AttentionOptions = {}) {
    super({ ...args, attention_bias: false }, { rope });
    this.q_norm = new RMSNorm(this.headDim, args.rms_norm_eps);
    this.k_norm = new RMSNorm(this.headDim, args.rms_norm_eps);
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    super(args, (index) => {
      const type = layerType(args, index);
      const mlp = () => new GatedMLP(args.hidden_size, args.intermediate_size);
      return new llama.Block(
        new Attention(args, { rope: ropeOf({ ...args, rope_traditional: false }, { layerType: type }) }),
        mlp(),
        args,
        maskOf(type, args),
      );
    });
  }
}

export const awq = denseAwq();

export const gguf = decoder("qwen3");
