/** MiniCPM: Llama with factors on embeddings, on what each part adds, and on the hidden states ahead of the head. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { GatedMLP } from "../nn";
import { checkHeads, denseFields, size } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder, precise } from "./gguf/decoder";
import { f32 } from "./gguf/facts";
import { ScaledBlock } from "./granite";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    tie_word_embeddings: z.boolean().default(false),
    /** Width of the small model whose learning rates it took over. */
    dim_model_base: size,
    scale_depth: z.number().positive(),
    scale_emb: z.number().positive(),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

export class Model extends CausalLM {
  constructor(args: Args) {
    const { hidden_size: D, intermediate_size, num_hidden_layers: layers } = args;
    const block = () =>
      new ScaledBlock(
        new llama.Attention(args),
        new GatedMLP(D, intermediate_size),
        args,
        args.scale_depth / Math.sqrt(layers),
      );
    super(args, block, {
      embeddingScale: args.scale_emb,
      adjustHidden: (h) => h.divide(D / args.dim_model_base),
    });
  }

  /** A checkpoint without a head has the embedding for one, also where the configuration does not say so. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    return this.lm_head ? withHead(sanitized) : sanitized;
  }
}

/** The weights of a model with a head of its own: the embedding, where they have none. */
export function withHead(weights: Map<string, Tensor>): Map<string, Tensor> {
  if (weights.has("lm_head.weight")) return weights;
  for (const [name, tensor] of [...weights]) {
    const kind = /^model\.embed_tokens\.(.*)$/.exec(name)?.[1];
    if (kind) weights.set(`lm_head.${kind}`, tensor);
  }
  return weights;
}

export const awq = denseAwq();

export const gguf = decoder("minicpm", {
  pairsRows: true,
  read(file, { hidden_size: width, num_hidden_layers: layers }) {
    const scale = file.number("logit_scale");
    const depth = (file.number("residual_scale") ?? 1.4 / Math.sqrt(layers as number)) * Math.sqrt(layers as number);
    return {
      dim_model_base: scale === undefined ? 256 : Math.round((width as number) / scale),
      scale_depth: Number(depth.toPrecision(6)),
      scale_emb: precise(file.number("embedding_scale") ?? 12),
    };
  },
  write(settings) {
    const { hidden_size: width, num_hidden_layers: layers, ...args } = settings as unknown as Args;
    return {
      embedding_scale: f32(args.scale_emb),
      residual_scale: f32(args.scale_depth / Math.sqrt(layers)),
      logit_scale: f32(width / args.dim_model_base),
    };
  },
});
