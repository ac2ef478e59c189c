/** Gemma: Llama with zero-centered norms, scaled embeddings and a GELU gate. */
import { z } from "zod";
import { GatedMLP, type KeyValueCache, type Mask, Module, type Residual, ZeroCenteredRMSNorm } from "../nn";
import { checkHeads, denseFields, geluOf, size } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    head_dim: size,
    num_key_value_heads: size,
    hidden_act: z.string().nullish(),
    hidden_activation: z.string().nullish(),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

class Block extends Module {
  self_attn: llama.Attention;
  mlp: GatedMLP;
  input_layernorm: ZeroCenteredRMSNorm;
  post_attention_layernorm: ZeroCenteredRMSNorm;

  constructor(args: Args) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    this.self_attn = new llama.Attention({ ...args, attention_bias: false });
    const bend = geluOf(args.hidden_activation ?? args.hidden_act);
    this.mlp = new GatedMLP(D, args.intermediate_size, { activation: (gate, x) => bend(gate).multiply(x) });
    this.input_layernorm = new ZeroCenteredRMSNorm(D, eps);
    this.post_attention_layernorm = new ZeroCenteredRMSNorm(D, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.self_attn.forward(x.branch(this.input_layernorm), mask, cache));
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    super({ ...args, tie_word_embeddings: true }, () => new Block(args), {
      norm: (dims, eps) => new ZeroCenteredRMSNorm(dims, eps),
      embeddingScale: Math.sqrt(args.hidden_size),
    });
  }
}

export const awq = denseAwq();

export const gguf = decoder("gemma", { normOffset: 1 });
