/** EXAONE 3: Llama under GPT-2's names. */
import { z } from "zod";
import {
  type DecoderLayer,
  type KeyValueCache,
  type Mask,
  Module,
  NamedAttention,
  NamedMLP,
  type Residual,
  RMSNorm,
  swiglu,
} from "../nn";
import { attentionFields, checkHeads, headsOf, ropeOf, size } from "./args";
import type { AwqFacts } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { plainLayer, TensorNames } from "./gguf/names";
import { names } from "./gpt2";
import { NamedLM } from "./named-lm";

export const Args = z
  .object({
    ...attentionFields,
    hidden_size: size,
    num_layers: size,
    intermediate_size: size,
    vocab_size: size,
    layer_norm_epsilon: z.number().positive(),
    tie_word_embeddings: z.boolean().default(true),
    mlp_bias: z.boolean().default(false),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

/** Checkpoints have attention one level further down than other models. */
class Inner extends Module {
  constructor(readonly attention: NamedAttention) {
    super();
  }
}

class Block extends Module implements DecoderLayer {
  ln_1: RMSNorm;
  attn: Inner;
  ln_2: RMSNorm;
  mlp: NamedMLP;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, layer_norm_epsilon: eps, attention_bias: bias } = args;
    this.ln_1 = new RMSNorm(dims, eps);
    const inputs = ["q_proj", "k_proj", "v_proj"] as const;
    const options = { ...headsOf(args), dims, rope: ropeOf(args), bias, inputs, output: "out_proj" };
    this.attn = new Inner(new NamedAttention(options));
    this.ln_2 = new RMSNorm(dims, eps);
    const mlp = { names: { gate: "c_fc_0", up: "c_fc_1", down: "c_proj" }, bias: args.mlp_bias, activation: swiglu };
    this.mlp = new NamedMLP(dims, args.intermediate_size, mlp);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.attn.attention.forward(x.branch(this.ln_1), mask, cache));
    return h.plus(this.mlp.forward(h.branch(this.ln_2)));
  }
}

export class Model extends NamedLM {
  constructor(args: Args) {
    const { hidden_size: dims, vocab_size: vocab, num_layers: layers, tie_word_embeddings: tied } = args;
    const norm = new RMSNorm(dims, args.layer_norm_epsilon);
    super({ dims, vocab, layers, tied }, { ...names, trunk: "transformer" }, () => new Block(args), norm);
  }
}

export const joins = [
  ["q_proj", "k_proj", "v_proj"],
  ["c_fc_0", "c_fc_1"],
];

export const awq: AwqFacts = {
  noClip: ["q_proj", "k_proj"],
  groups: [
    {
      before: "ln_1",
      layers: ["q_proj", "k_proj", "v_proj"].map((name) => `attn.attention.${name}`),
      part: "attn.attention",
    },
    { before: "mlp.c_fc_1", layers: ["mlp.c_proj"] },
    { before: "ln_2", layers: ["mlp.c_fc_0", "mlp.c_fc_1"], part: "mlp" },
  ],
};

export const gguf = decoder("exaone", {
  names: new TensorNames(
    {
      ...plainLayer,
      attn_norm: "ln_1",
      attn_q: "attn.attention.q_proj",
      attn_k: "attn.attention.k_proj",
      attn_v: "attn.attention.v_proj",
      attn_output: "attn.attention.out_proj",
      ffn_norm: "ln_2",
      ffn_gate: "mlp.c_fc_0",
      ffn_up: "mlp.c_fc_1",
      ffn_down: "mlp.c_proj",
    },
    { layers: "transformer.h", outer: { token_embd: "transformer.wte", output_norm: "transformer.ln_f" } },
  ),
  epsilon: ["attention.layer_norm_rms_epsilon", "layer_norm_epsilon"],
  common: (config) => ({ num_hidden_layers: (config as Args).num_layers }),
  only: { attention_bias: false, mlp_bias: false },
  read: (_, { num_hidden_layers }) => ({ num_layers: num_hidden_layers }),
});
