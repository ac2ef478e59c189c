/** Qwen 1: Llama under GPT-2's names, with queries, keys and values in one projection that has a bias. */
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
import { size } from "./args";
import type { AwqFacts } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { names } from "./gpt2";
import { NamedLM } from "./named-lm";

export const Args = z.object({
  hidden_size: size.default(2048),
  num_attention_heads: size.default(16),
  num_hidden_layers: size.default(24),
  kv_channels: size.default(128),
  rotary_emb_base: z.number().positive().default(10_000),
  layer_norm_epsilon: z.number().positive().default(1e-6),
  intermediate_size: size.default(11_008),
  no_bias: z.boolean().default(true),
  vocab_size: size.default(151_936),
});

type Args = z.infer<typeof Args>;

class Block extends Module implements DecoderLayer {
  ln_1: RMSNorm;
  attn: NamedAttention;
  ln_2: RMSNorm;
  mlp: NamedMLP;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, num_attention_heads: heads, kv_channels: headDim, no_bias } = args;
    const rope = { dims: headDim, base: args.rotary_emb_base };
    this.ln_1 = new RMSNorm(dims, args.layer_norm_epsilon);
    this.attn = new NamedAttention({
      ...{ dims, heads, kvHeads: heads, headDim, rope, bias: true, outputBias: !no_bias },
      ...{ inputs: "c_attn", output: "c_proj" },
    });
    this.ln_2 = new RMSNorm(dims, args.layer_norm_epsilon);
    const mlp = { names: { gate: "w2", up: "w1", down: "c_proj" }, bias: !no_bias, activation: swiglu };
    this.mlp = new NamedMLP(dims, Math.floor(args.intermediate_size / 2), mlp);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.attn.forward(x.branch(this.ln_1), mask, cache));
    return h.plus(this.mlp.forward(h.branch(this.ln_2)));
  }
}

export class Model extends NamedLM {
  constructor(args: Args) {
    const { hidden_size: dims, vocab_size: vocab, num_hidden_layers: layers, no_bias } = args;
    super(
      { dims, vocab, layers, tied: false, headBias: !no_bias },
      { ...names, trunk: "transformer" },
      () => new Block(args),
      new RMSNorm(dims, args.layer_norm_epsilon),
    );
  }
}

export const joins = [["w2", "w1"]];

export const awq: AwqFacts = {
  noClip: ["c_attn"],
  groups: [
    { before: "ln_1", layers: ["attn.c_attn"], part: "attn" },
    { before: "mlp.w1", layers: ["mlp.c_proj"] },
    { before: "ln_2", layers: ["mlp.w1", "mlp.w2"], part: "mlp" },
  ],
};

const layer = {
  attn_norm: "ln_1",
  attn_qkv: "attn.c_attn",
  attn_output: "attn.c_proj",
  ffn_norm: "ln_2",
  ffn_gate: "mlp.w2",
  ffn_up: "mlp.w1",
  ffn_down: "mlp.c_proj",
};

/** Of the published models. */
const usualContext = 8192;

export const gguf = decoder("qwen", {
  names: new TensorNames(layer, {
    outer: { token_embd: "transformer.wte", output_norm: "transformer.ln_f" },
    layers: "transformer.h",
  }),
  epsilon: ["attention.layer_norm_rms_epsilon", "layer_norm_epsilon"],
  common: (config) => {
    const { kv_channels, rotary_emb_base, seq_length } = config as Args & { seq_length?: number };
    return { head_dim: kv_channels, rope_theta: rotary_emb_base, max_position_embeddings: seq_length ?? usualContext };
  },
  only: { no_bias: true },
  read: (_, { head_dim, rope_theta, max_position_embeddings }) => ({
    kv_channels: head_dim,
    rotary_emb_base: rope_theta,
    seq_length: max_position_embeddings,
  }),
  write(settings) {
    const { hidden_size: dims, num_attention_heads: heads, kv_channels: width } = settings as unknown as Args;
    if (heads * width !== dims) noPlace(`"kv_channels" ${width} (not ${dims / heads})`);
    return {};
  },
});
