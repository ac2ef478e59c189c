/** Granite: Llama with factors on embeddings, attention's scores, what each part adds, and logits. */
import { z } from "zod";
import { GatedMLP, type KeyValueCache, type Layer, type Mask, type Residual } from "../nn";
import { checkHeads, denseFields, size } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { CausalLM, type TrunkOptions } from "./language-model";
import * as llama from "./llama";

/** The factors that all of the family have. */
export const factorFields = {
  logits_scaling: z.number(),
  attention_multiplier: z.number(),
  embedding_multiplier: z.number(),
  residual_multiplier: z.number(),
};

export const Args = z
  .object({
    ...denseFields,
    ...factorFields,
    num_key_value_heads: size,
    max_position_embeddings: size,
    attention_bias: z.boolean(),
    mlp_bias: z.boolean(),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

type Factors = z.infer<z.ZodObject<typeof factorFields>>;

/** Attention with the scores' factor of the configuration. */
export class Attention extends llama.Attention {
  override readonly scale: number;

  constructor(args: llama.AttentionArgs & Factors, options?: llama.AttentionOptions) {
    super(args, options);
    this.scale = args.attention_multiplier;
  }
}

/** The factors on embeddings and logits. */
export const trunkFactors = (args: Factors): Pick<TrunkOptions, "embeddingScale" | "adjustLogits"> => ({
  embeddingScale: args.embedding_multiplier,
  adjustLogits: (logits) => logits.divide(args.logits_scaling),
});

/** A block whose parts' results have a factor. */
export class ScaledBlock extends llama.Block {
  constructor(
    attention: llama.SelfAttention,
    mlp: Layer,
    sizes: { hidden_size: number; rms_norm_eps: number },
    readonly factor: number,
  ) {
    super(attention, mlp, sizes);
  }

  override forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const attended = this.self_attn.forward(x.branch(this.input_layernorm), mask, cache);
    const h = x.plus(attended.multiply(this.factor));
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)).multiply(this.factor));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { hidden_size: D, intermediate_size, mlp_bias: bias, residual_multiplier } = args;
    const block = () =>
      new ScaledBlock(new Attention(args), new GatedMLP(D, intermediate_size, { bias }), args, residual_multiplier);
    super(args, block, trunkFactors(args));
  }
}

export const awq = denseAwq();

/** The factors that all of the family have, in GGUF files. */
export const factorNames = {
  logit_scale: "logits_scaling",
  "attention.scale": "attention_multiplier",
  embedding_scale: "embedding_multiplier",
  residual_scale: "residual_multiplier",
};

export const gguf = decoder("granite", { pairsRows: true, floats: factorNames });
